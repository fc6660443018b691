"""Inputs of every kind: answers come in order, as they are asked for, and nothing is kept."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.pipelines import assert_same, sentences
from torch.utils.data import Dataset, IterableDataset

import unibody

TEXTS = sentences(13)


@pytest.fixture(scope="module")
def pipe(checkpoint: Callable[[str], Path]) -> Any:
    return unibody.pipeline("text-classification", checkpoint("classes"))


@pytest.fixture(scope="module")
def chunks(checkpoint: Callable[[str], Path]) -> Any:
    return unibody.pipeline("ner", checkpoint("short entities"), stride=2, aggregation_strategy="simple")


@pytest.fixture(scope="module", params=["pipe", "chunks"])
def any_pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


class Rows(Dataset[str]):
    """Numbered rows and a length, as simple as can be."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


class Stream(IterableDataset[str]):
    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


class Bare:
    """Has rows and a length, and does not say where it ends."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


@pytest.mark.parametrize("size, workers", [(1, 0), (4, 0), (50, 0), (4, 2)])
def test_all_kinds_of_inputs(any_pipe: Any, size: int, workers: int) -> None:
    expected = [any_pipe([text])[0] for text in TEXTS]
    rows = [{"text": text, "number": index} for index, text in enumerate(TEXTS)]
    options = {"batch_size": size, "num_workers": workers}
    for inputs in (TEXTS, Rows(), Stream(), iter(TEXTS), (text for text in TEXTS), unibody.KeyDataset(rows, "text")):
        found = any_pipe(inputs, **options)
        assert isinstance(found, list if inputs is TEXTS else Iterator)
        assert_same(list(found), expected)
    assert_same(list(any_pipe(Bare(), **options)), expected[:3])


def test_pairs_of_columns(pipe: Any) -> None:
    rows = [{"a": one, "b": other} for one, other in zip(TEXTS, reversed(TEXTS), strict=True)]
    expected = [pipe({"text": row["a"], "text_pair": row["b"]}) for row in rows]
    assert_same(list(pipe(unibody.KeyPairDataset(rows, "a", "b"), batch_size=5)), expected)


@pytest.mark.parametrize("size", [1, 4])
def test_no_more_is_read_than_needed(any_pipe: Any, size: int) -> None:
    """An endless generator is read a batch at a time; what was answered is let go."""
    asked, seen = 0, []

    class Text(str):
        """A text that can be watched."""

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            text = Text(TEXTS[asked % len(TEXTS)])
            seen.append(weakref.ref(text))
            yield text
            del text

    answers = any_pipe(endless(), batch_size=size)
    assert asked == 0
    for number in range(1, 30):
        next(answers)
        assert asked <= number + size
    gc.collect()
    assert sum(reference() is not None for reference in seen) <= size + 1


def test_memory_does_not_grow(pipe: Any) -> None:
    """Of hundreds of answers none is kept: the number of live tensors stays what it was."""
    answers = pipe((TEXTS[index % 13] for index in range(600)), batch_size=50)

    def tensors() -> int:
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    counts = [tensors() for index, _ in enumerate(answers) if index % 200 == 60]
    assert len(set(counts)) == 1


def test_seeds_are_left_alone(pipe: Any) -> None:
    """What a program has seeded is not used up by batching."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pipe(TEXTS, batch_size=4)
    assert torch.equal(torch.rand(3), expected)


def test_errors_come_at_their_place(pipe: Any) -> None:
    answers = pipe(text for text in ["a", None, "b"])
    assert [next(answers)] == pipe("a")
    with pytest.raises(TypeError, match="text-classification reads a text"):
        next(answers)


def test_progress(pipe: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A bar only where it is asked for."""
    quiet = pipe(TEXTS)
    assert capfd.readouterr().err == ""
    assert pipe(TEXTS, progress=True) == quiet
    assert "13/13" in capfd.readouterr().err
    assert list(pipe(iter(TEXTS), progress=True)) == quiet
    assert "13it" in capfd.readouterr().err


def test_batches_need_padding(pipe: Any, checkpoint: Callable[[str], Path]) -> None:
    bare = copy.copy(pipe)
    bare.model, bare.tokenizer = copy.deepcopy(pipe.model), copy.deepcopy(pipe.tokenizer)
    bare.tokenizer.pad_token = None
    bare.model.config.pad_token_id = None
    assert len(bare(TEXTS)) == len(TEXTS)
    with pytest.raises(ValueError, match=r"no padding token.*set tokenizer.pad_token, or use batch_size=1"):
        bare(TEXTS, batch_size=3)
