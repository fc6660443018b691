"""Collators make the batches of transformers' collators, from the same tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenization.conftest import minilm
from torch import Tensor

import unibody

TEXTS = ["sir walter elliot", "of kellynch hall, in somersetshire, was a man who", "for"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return unibody.AutoTokenizer.from_pretrained(str(minilm()))


@pytest.fixture(scope="module")
def oracle() -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(minilm()))


def features(tokenizer: Any, **more: list[Any]) -> list[dict[str, Any]]:
    encoded = tokenizer(TEXTS)
    return [{**{k: v[i] for k, v in encoded.items()}, **{k: v[i] for k, v in more.items()}} for i in range(len(TEXTS))]


def assert_same(ours: Any, theirs: Any) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(
    "rows",
    [
        [{"x": [1, 2], "label": 1}, {"x": [3, 4], "label": 0}],
        [{"x": [1.5, 2], "label": 0.5, "text": "a"}, {"x": [3, 4.0], "label": 1.5, "text": "b"}],
        [{"x": np.ones((2, 3), dtype="float32"), "label_ids": [1, 2]}, {"x": np.zeros((2, 3), dtype="float32"), "label_ids": [3, 4]}],
        [{"x": torch.ones(2), "label": torch.tensor(1)}, {"x": torch.zeros(2), "label": torch.tensor(0)}],
        [{"x": True, "none": None}, {"x": False, "none": None}],
    ],
    ids=["lists", "floats", "numpy", "tensors", "none"],
)  # fmt: skip
def test_default(rows: list[dict[str, Any]]) -> None:
    assert_same(unibody.default_data_collator(rows), transformers.default_data_collator(rows))


@pytest.mark.parametrize(
    "options", [{}, {"pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 20}], ids=str
)
def test_padding(tokenizer: Any, oracle: Any, options: dict[str, Any]) -> None:
    rows = features(tokenizer, label=[1, 0, 2])
    ours, theirs = (
        library.DataCollatorWithPadding(made, **options)([dict(row) for row in rows])
        for library, made in ((unibody, tokenizer), (transformers, oracle))
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_token_classification(tokenizer: Any, oracle: Any, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    for made in (tokenizer, oracle):
        monkeypatch.setattr(made, "padding_side", side)
    rows = features(tokenizer)
    for number, row in enumerate(rows):
        row["labels"] = [number] * len(row["input_ids"])
    ours, theirs = (
        library.DataCollatorForTokenClassification(made, pad_to_multiple_of=4)([dict(row) for row in rows])
        for library, made in ((unibody, tokenizer), (transformers, oracle))
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "options", [{}, {"pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 32}, {"label_pad_token_id": 0}]
)
def test_labels_of_their_own_lengths(
    tokenizer: Any, oracle: Any, monkeypatch: pytest.MonkeyPatch, side: str, options: dict[str, Any]
) -> None:
    for made in (tokenizer, oracle):
        monkeypatch.setattr(made, "padding_side", side)
    rows = features(tokenizer, labels=[[1, 2, 3], [4], [5] * 19])
    ours, theirs = (
        library.DataCollatorForSeq2Seq(made, **options)([dict(row) for row in rows])
        for library, made in ((unibody, tokenizer), (transformers, oracle))
    )
    assert_same(ours, theirs)


def test_causal_language_modelling(tokenizer: Any, oracle: Any) -> None:
    rows = features(tokenizer)
    ours, theirs = (
        library.DataCollatorForLanguageModeling(made, mlm=False)([dict(row) for row in rows])
        for library, made in ((unibody, tokenizer), (transformers, oracle))
    )
    assert_same(ours, theirs)
    assert (ours["labels"] == -100).any()


@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.5, 0.5), (0.6, 0.0)])
def test_masking_with_the_same_random_numbers(tokenizer: Any, oracle: Any, shares: tuple[float, float]) -> None:
    """From torch's common generator, and from one of the collator's own."""
    for seed in (None, 5):
        options = {
            "mlm_probability": 0.4,
            "mask_replace_prob": shares[0],
            "random_replace_prob": shares[1],
            "seed": seed,
        }
        ours = unibody.DataCollatorForLanguageModeling(tokenizer, **options)
        theirs = transformers.DataCollatorForLanguageModeling(oracle, **options)
        for _ in range(3):
            torch.manual_seed(1)
            found = ours(features(tokenizer))
            torch.manual_seed(1)
            assert_same(found, theirs(features(tokenizer)))


def test_masking_has_its_distribution(tokenizer: Any) -> None:
    """Of 60,000 tokens: shares within five standard deviations."""
    ids = torch.randint(1000, 20000, (200, 300))
    collate = unibody.DataCollatorForLanguageModeling(tokenizer, seed=0)
    inputs, labels = collate.torch_mask_tokens(ids, torch.zeros_like(ids))
    guessed = labels != -100

    def share(chosen: Tensor, of: int) -> float:
        return chosen.sum().item() / of

    count = guessed.sum().item()
    assert share(guessed, ids.numel()) == pytest.approx(0.15, abs=5 * (0.15 * 0.85 / ids.numel()) ** 0.5)
    for chosen, expected in (
        (guessed & (inputs == tokenizer.mask_token_id), 0.8),
        (guessed & (inputs != tokenizer.mask_token_id) & (inputs != ids), 0.1),
        (guessed & (inputs == ids), 0.1),
    ):
        assert share(chosen, count) == pytest.approx(expected, abs=5 * (expected * (1 - expected) / count) ** 0.5)
    assert torch.equal(inputs[~guessed], ids[~guessed]) and torch.equal(labels[guessed], ids[guessed])


def test_special_tokens_are_never_guessed(tokenizer: Any) -> None:
    batch = unibody.DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0)(features(tokenizer))
    special = (batch["attention_mask"] == 0) | (batch["input_ids"] == tokenizer.cls_token_id)
    assert (batch["labels"][special] == -100).all()
    assert (batch["labels"] != -100).sum() == batch["attention_mask"].sum() - 2 * len(TEXTS)


def test_wrong(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"rows of column 'x' make no tensor .* use DataCollatorWithPadding"):
        unibody.default_data_collator([{"x": [1]}, {"x": [1, 2]}])
    with pytest.raises(ValueError, match="mlm_probability is 2: it must be from 0 to 1"):
        unibody.DataCollatorForLanguageModeling(tokenizer, mlm_probability=2)
    with pytest.raises(ValueError, match="their sum must be at most 1"):
        unibody.DataCollatorForLanguageModeling(tokenizer, random_replace_prob=0.5)
    with pytest.raises(ValueError, match="return_tensors is 'np': batches are tensors of torch, 'pt'"):
        unibody.default_data_collator([{"x": 1}], return_tensors="np")
    without = unibody.AutoTokenizer.from_pretrained(str(minilm()))
    without.mask_token = None
    with pytest.raises(ValueError, match="has no mask token, which mlm=True needs"):
        unibody.DataCollatorForLanguageModeling(without)
