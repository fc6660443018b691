"""Names, renaming and the reading of source without a tokenizer, by example."""

from __future__ import annotations

import io
import tokenize

import pytest

from unibody.generator.transformers import lexical
from unibody.generator.transformers.library import Library, package_file
from unibody.generator.transformers.names import Names, common_suffix
from unibody.generator.transformers.renaming import Renamer

NAMES = Names({"gpt-sw3": "GPT2Config", "gpt2": "GPT2Config", "xlm-roberta": "XLMRobertaConfig", "clip": "CLIPConfig"})


@pytest.mark.parametrize(
    ("lower", "cased"),
    [("gpt2", "GPT2"), ("xlm_roberta", "XLMRoberta"), ("qwen3_moe", "Qwen3Moe"), ("gemma3n", "Gemma3N")],
)
def test_cased(lower: str, cased: str) -> None:
    assert NAMES.cased(lower) == cased


@pytest.mark.parametrize(
    ("cased", "lower"), [("GPT2", "gpt2"), ("XLMRoberta", "xlm_roberta"), ("PPDocLayoutV2", "p_p_doc_layout_v2")]
)
def test_lower(cased: str, lower: str) -> None:
    assert NAMES.lower(cased) == lower


@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [
        ("sam2_video", "Sam2VideoProcessor", "processing"),
        ("sam2_video", "Sam2VideoVideoProcessor", "video_processing"),
        ("duck", "DuckImageProcessorPilKwargs", "image_processing_pil"),
        ("duck", "DuckTokenizerFast", "modeling"),
        ("duck", "DuckTextConfig", "configuration"),
    ],
)
def test_the_file_that_a_class_goes_to(model: str, name: str, kind: str) -> None:
    assert NAMES.type_of(name, model) == kind


def test_common_suffix_is_never_a_whole_name() -> None:
    assert common_suffix("DuckTextModel", "LlamaModel") == "Model"
    assert common_suffix("DuckModel", "Model") == ""


@pytest.mark.parametrize(
    ("old", "new", "text", "expected"),
    [
        ("sam", "sam2", "sample Sam SAM sAm _sam unsam 1sam", "sam2ple Sam2 SAM2 Sam2 _sam2 unsam 1sam"),
        ("clip", "altclip", "CLIP CLIPModel clip CLIP", "ALTCLIP AltclipModel altclip ALTCLIP"),
        ("xlm-roberta", "duck", "xlm_roberta XLMRoberta XLM_ROBERTA xlm-roberta", "duck Duck DUCK xlm-roberta"),
    ],
)
def test_renaming(old: str, new: str, text: str, expected: str) -> None:
    assert Renamer(NAMES, old, new).plain(text) == expected


def test_renaming_of_whole_words_leaves_other_words_alone() -> None:
    assert Renamer(NAMES, "sam", "sam2", whole_words=True).plain("sample sam SamModel") == "sample sam2 Sam2Model"


def test_fields_of_f_strings_are_code_and_their_text_is_not() -> None:
    text = 'x = f"a {b["c"]!r:>{width}} {{d}}" + r"e\\" # f"'
    kinds = [(text[s.start : s.end], s.kind) for s in lexical.spans(text)]

    assert kinds == [
        ('f"a ', lexical.FORMATTED),
        ('"c"', lexical.STRING),
        (">", lexical.FORMATTED),
        ('} {{d}}"', lexical.FORMATTED),
        ('r"e\\" # f"', lexical.STRING),
    ]


def test_comments_and_strings_are_those_of_the_tokenizer() -> None:
    models = package_file("transformers/models")
    assert models is not None
    library = Library(models)
    for path in ("llama/modeling_llama.py", "sam2/modular_sam2.py", "whisper/modeling_whisper.py"):
        source = library.source(path)
        found = [source.text[s.start : s.end] for s in source.spans if s.kind == lexical.COMMENT]
        tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
        assert found == [token.string for token in tokens if token.type == tokenize.COMMENT]
