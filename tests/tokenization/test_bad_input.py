"""What is no text, no length, no tokenizer's file: an error that names it and says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import unibody
from tokenization.conftest import Pair


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([None], {}, ValueError, "there is no text: pass `text` or `text_target`"),
        ([b"abc"], {}, TypeError, r"text is bytes: decode it, for example with \.decode\('utf-8'\)"),
        ([5], {}, TypeError, "text is int: a text is a str"),
        ([["a", None]], {}, TypeError, r"text\[1\] is None: a text is a str"),
        ([["a", b"b"]], {}, TypeError, r"text\[1\] is bytes"),
        ([[["a", "b", "c"]]], {}, TypeError, r"text\[0\] is list: for a list of words say is_split_into_words=True"),
        ([[]], {}, ValueError, "the batch is empty: give at least one text"),
        (["a\ud800b"], {}, ValueError, "text has half of a surrogate pair at position 1"),
        (["a"], {"is_split_into_words": True}, TypeError, "text is str: with is_split_into_words it has to be a list"),
        ([["a", 1]], {"is_split_into_words": True}, TypeError, "text, word 1, is int"),
        ([["a", "b"], ["c"]], {}, ValueError, "a batch of 2 texts needs as many in text_pair, and there is 1 pairs"),
        ([["a", "b"], "c"], {}, ValueError, "a batch of 2 texts needs as many in text_pair, and there is one text"),
        (["a"], {"padding": "most"}, ValueError, "padding is 'most': one of True, False and 'longest', 'max_length'"),
        (["a"], {"truncation": "most"}, ValueError, "truncation is 'most': one of True, False and 'longest_first'"),
        (["a"], {"padding_side": "top"}, ValueError, "padding_side is 'top': 'left' or 'right'"),
        (
            ["a b"],
            {"max_length": 1, "truncation": True},
            ValueError,
            "max_length is 1, and the special tokens alone are 2",
        ),
        (["a", "b"], {"max_length": 2, "truncation": True}, ValueError, "and the special tokens alone are 3"),
        (
            ["a b"],
            {"max_length": 6, "truncation": True, "stride": 4},
            ValueError,
            "leaves 4 tokens beside the 2 special",
        ),
        (["a", "b c d e f"], {"max_length": 5, "truncation": "only_first"}, ValueError, "take truncation=True, or"),
        (["a"], {"return_tensors": "tf"}, ValueError, r"return_tensors is 'tf': one of 'pt' \(torch\) and 'np'"),
        (
            [["a", "b c"]],
            {"return_tensors": "pt"},
            ValueError,
            "input_ids makes no tensor, its rows have unequal lengths",
        ),
        (
            [["a", "b c"]],
            {"return_tensors": "np"},
            ValueError,
            "input_ids makes no tensor, its rows have unequal lengths",
        ),
        (["a"], {"max_lenght": 4}, TypeError, "takes no max_lenght"),
        (
            [["a", "b"]],
            {"padding": True, "truncation": True, "max_length": 9, "pad_to_multiple_of": 4},
            ValueError,
            "max_length 9 is no multiple of pad_to_multiple_of 4",
        ),
    ],
)
@pytest.mark.parametrize("name", ["minilm", "bert"])
def test_calls(
    name: str,
    arguments: list[Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    pair: Callable[[str], Pair],
) -> None:
    with pytest.raises(error, match=message):
        pair(name).ours(*arguments, **options)


def test_too_long(pair: Callable[[str], Pair], caplog: pytest.LogCaptureFixture) -> None:
    """Longer than the model reads: said once, and nothing is cut."""
    tokenizer = deepcopy(pair("minilm").ours)
    with caplog.at_level("WARNING", logger="unibody"):
        tokenizer("a " * 600, verbose=False)
        assert not caplog.messages
        for _ in range(2):
            assert len(tokenizer(["a", "a " * 600])["input_ids"][1]) == 602
    assert caplog.messages == ["a text has 602 tokens, and the model reads 512: pass truncation=True"]


def test_no_pad_token(pair: Callable[[str], Pair]) -> None:
    tokenizer = deepcopy(pair("llama3").ours)
    tokenizer.pad_token = None
    with pytest.raises(
        ValueError, match=r"this tokenizer has none: set tokenizer\.pad_token = tokenizer\.eos_token, or add"
    ):
        tokenizer(["a", "b c"], padding=True)
    tokenizer.pad_token = "<never added>"
    with pytest.raises(ValueError, match="its '<never added>' is not in the vocabulary"):
        tokenizer(["a", "b c"], padding=True)
    tokenizer.add_special_tokens({"pad_token": "<never added>"})
    assert tokenizer(["a", "b c"], padding=True)["attention_mask"][0][-1] == 0


def test_numbers(pair: Callable[[str], Pair]) -> None:
    tokenizer = pair("minilm").ours
    with pytest.raises(ValueError, match=r"-1 is no number of a token"):
        tokenizer.decode([101, -1])
    with pytest.raises(ValueError, match=r"'a' is no number of a token"):
        tokenizer.decode(["a"])
    assert tokenizer.decode([101, 10**9]) == "[CLS]"
    with pytest.raises(ValueError, match="pad_token_id is 999999, which the vocabulary of 30522 tokens does not have"):
        tokenizer.pad_token_id = 999_999
    with pytest.raises(AttributeError, match="BertTokenizerFast has no attribute 'image_token'"):
        tokenizer.image_token  # noqa: B018
    with pytest.raises(AttributeError, match="this encoding has no 'labels'; it has input_ids, "):
        tokenizer("a").labels  # noqa: B018
    with pytest.raises(ValueError, match="'colour_token' is no role of a special token: one of bos_token, "):
        tokenizer.add_special_tokens({"colour_token": "red"})
    with pytest.raises(ValueError, match="bos_token is 5: expected a text, or an object with its content"):
        tokenizer.bos_token = 5
    with pytest.raises(ValueError, match="there is nothing to pad"):
        tokenizer.pad([])
    with pytest.raises(ValueError, match="input_ids are what is padded, and there are only labels columns"):
        tokenizer.pad({"labels": [[1]]})


def test_offsets_in_python(pair: Callable[[str], Pair]) -> None:
    tokenizer = pair("bert").ours
    with pytest.raises(ValueError, match="offsets need a fast tokenizer, and BertTokenizer is written in Python"):
        tokenizer("a", return_offsets_mapping=True)
    with pytest.raises(ValueError, match=r"word_ids\(\) needs a fast tokenizer"):
        tokenizer("a").word_ids()


@pytest.mark.parametrize(
    ("file", "text", "error", "message"),
    [
        (
            "tokenizer.json",
            "{",
            ValueError,
            r"tokenizer\.json is no tokenizer\.json that tokenizers .* reads .*: fetch it",
        ),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "New"}}', ValueError, r"is no tokenizer\.json that"),
        ("tokenizer_config.json", "[1]", ValueError, r"tokenizer_config\.json holds list, expected an object"),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"x": {"content": "y"}}}',
            ValueError,
            "a key that is no number",
        ),
        ("tokenizer_config.json", '{"pad_token": 3}', ValueError, "pad_token is 3: expected a text, or an object"),
        ("tokenizer_config.json", '{"padding_side": "up"}', ValueError, "padding_side is 'up'"),
        (
            "tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": 5}}',
            ValueError,
            "says 5 for AutoTokenizer: expected",
        ),
        (
            "tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": "../x.Y"}}',
            ValueError,
            r"says '\.\./x\.Y' for Auto",
        ),
        ("special_tokens_map.json", "{", ValueError, r"special_tokens_map\.json is not valid JSON"),
    ],
)
def test_files(
    file: str, text: str, error: type[Exception], message: str, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / "broken"
    shutil.copytree(folder("smollm2"), place)
    (place / file).write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        unibody.AutoTokenizer.from_pretrained(place)


def test_vocabulary_files(folder: Callable[[str], Path], tmp_path: Path) -> None:
    def written(name: str, text: str) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(FileNotFoundError, match=r"has no vocab\.txt, which BertTokenizer reads: fetch it again"):
        unibody.BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder|not a folder: name a checkpoint's folder"):
        unibody.BertTokenizer.from_pretrained(tmp_path / "nowhere")
    written("vocab.txt", "a\nb\n")
    with pytest.raises(ValueError, match=r"vocab\.txt has no \[CLS\], \[SEP\], \[UNK\], which every text needs"):
        unibody.BertTokenizerFast.from_pretrained(tmp_path)
    written("vocab.json", json.dumps({"a": 0}))
    with pytest.raises(FileNotFoundError, match=r"and of these there is vocab\.json: fetch the others"):
        unibody.GPT2TokenizerFast.from_pretrained(tmp_path)
    written("merges.txt", "#version: 0.2\na b\nabc\n")
    with pytest.raises(ValueError, match=r'merges\.txt, line 3: "abc" is no pair of tokens'):
        unibody.GPT2TokenizerFast.from_pretrained(tmp_path)
    written("merges.txt", "a a\n")
    with pytest.raises(
        ValueError, match=r"merges\.txt merges 'aa', which .*vocab\.json lacks: the two are not of one tokenizer"
    ):
        unibody.GPT2TokenizerFast.from_pretrained(tmp_path)
    written("vocab.json", json.dumps({"a": 0, "aa": 1}))
    with pytest.raises(ValueError, match=r"lacks <s> or </s>, which every text needs"):
        unibody.RobertaTokenizerFast.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"needs a tokenizer_file \(tokenizer\.json\) or a tokenizer_object"):
        unibody.PreTrainedTokenizerFast()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: name a folder"):
        unibody.AutoTokenizer.from_pretrained(folder("smollm2")).save_pretrained(tmp_path / "file")


def test_a_class_that_says_too_little() -> None:
    class Half(unibody.PreTrainedTokenizer):
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    with pytest.raises(NotImplementedError, match=r"Half does not say how it splits a text \(_tokenize\)"):
        Half()("a")
    with pytest.raises(NotImplementedError, match="Half does not define vocab_size: PreTrainedTokenizer and"):
        Half().vocab_size  # noqa: B018
