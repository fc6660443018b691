"""The way of inputs through a pipeline: prepared one by one, batched by a data loader, taken apart again, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

Chunk = Mapping[str, Any]  # what the model reads of an input, or of a part of it; tensors have one row
Marked = tuple[Chunk, bool]  # a chunk, and whether it is the last of its input


class KeyDataset(Dataset[Any]):
    """One column of a dataset whose rows are dictionaries."""

    def __init__(self, dataset: Any, key: str) -> None:
        self.dataset, self.key = dataset, key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index][self.key]


class KeyPairDataset(Dataset[Any]):
    """Two columns of a dataset whose rows are dictionaries, as pairs of texts."""

    def __init__(self, dataset: Any, key1: str, key2: str) -> None:
        self.dataset, self.key1, self.key2 = dataset, key1, key2

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[index]
        return {"text": row[self.key1], "text_pair": row[self.key2]}


class Rows(Dataset[Marked]):
    """Inputs that are numbered, each one chunk: several workers may prepare them."""

    def __init__(self, inputs: Any, prepare: Callable[[Any], Iterable[Chunk]]) -> None:
        self.inputs, self.prepare = inputs, prepare

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Marked:
        (chunk,) = self.prepare(self.inputs[index])
        return chunk, True


class Flow(IterableDataset[Marked]):
    """Inputs of any kind, prepared as they come."""

    def __init__(self, inputs: Iterable[Any], prepare: Callable[[Any], Iterable[Chunk]]) -> None:
        self.inputs, self.prepare = inputs, prepare

    def __iter__(self) -> Iterator[Marked]:
        for value in each(self.inputs):
            chunks = iter(self.prepare(value))
            chunk = next(chunks, None)
            if chunk is None:
                raise ValueError(f"nothing to compute was made of the input {value!r}")
            for following in chunks:
                yield chunk, False
                chunk = following
            yield chunk, True


def each(inputs: Any) -> Iterator[Any]:
    """The inputs one by one; a dataset that has only numbered rows ends where its length says."""
    return iter(inputs) if hasattr(inputs, "__iter__") else (inputs[index] for index in range(len(inputs)))


def batches(
    inputs: Any,
    prepare: Callable[[Any], Iterable[Chunk]],
    *,
    batch_size: int,
    num_workers: int,
    single_chunks: bool,
    padding: Mapping[str, int | None],
    side: str,
) -> Iterable[tuple[dict[str, Any], list[bool]]]:
    """Batches of chunks, and for each chunk whether it ends its input; no more is prepared than the next batch needs.

    More than one worker is used only where the inputs are numbered and are one chunk each, so that the order is kept.
    """
    numbered = single_chunks and hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")
    source: Any = Rows(inputs, prepare) if numbered else Flow(inputs, prepare)
    return DataLoader(
        source, batch_size=batch_size, num_workers=num_workers if numbered else min(num_workers, 1),
        collate_fn=partial(collate, padding=padding, side=side),
        generator=torch.Generator(),  # of its own: what a program has seeded is not used up
    )  # fmt: skip


def collate(
    marked: Sequence[Marked], padding: Mapping[str, int | None], side: str
) -> tuple[dict[str, Any], list[bool]]:
    """One batch: tensors [1, S, …] padded on `side` to the longest and joined [B, S, …], other values as lists.

    `padding` has the value for each name; others get 0. A single chunk is left as it is, but for its values that are no tensors,
    which are lists too. ValueError: a chunk has several rows, or there is no value to pad with.
    """
    chunks, ends = [dict(chunk) for chunk, _ in marked], [last for _, last in marked]
    names = chunks[0].keys()
    if any(chunk.keys() != names for chunk in chunks):
        raise ValueError(f"inputs of one batch have different parts: {sorted({key for c in chunks for key in c})}")
    return {name: join(name, [chunk[name] for chunk in chunks], padding, side) for name in names}, ends


def join(name: str, values: list[Any], padding: Mapping[str, int | None], side: str) -> Any:
    if not all(isinstance(value, Tensor) for value in values):
        return values
    if len(values) == 1:
        return values[0]
    if any(value.ndim == 0 or len(value) != 1 for value in values):
        raise ValueError(f"{name} of an input has not one row, {list(values[0].shape)}: use batch_size=1")
    if values[0].ndim == 1 or len({value.shape[1] for value in values}) == 1:
        return torch.cat(values)
    longest, fill = max(value.shape[1] for value in values), padding.get(name, 0)
    if fill is None:
        raise ValueError(
            "the tokenizer has no padding token, which batches of texts of different lengths need: "
            "set tokenizer.pad_token, or use batch_size=1"
        )
    padded = []
    for value in values:
        gap = longest - value.shape[1]
        around = (0, 0) * (value.ndim - 2) + ((gap, 0) if side == "left" else (0, gap))
        padded.append(F.pad(value, around, value=fill))
    return torch.cat(padded)


def split(outputs: Any, count: int) -> list[Any]:
    """What a model gave for a batch, taken apart into one such structure for each row; tensors keep a first dimension of 1.

    Tensors and lists of `count` rows are divided, dictionaries and tuples hold such, and what has no rows goes to all.
    """
    if isinstance(outputs, Tensor):
        return list(torch.split(outputs, 1)) if outputs.ndim and len(outputs) == count else [outputs] * count
    if isinstance(outputs, list):
        return outputs if len(outputs) == count else [outputs] * count
    if isinstance(outputs, Mapping):
        kind = type(outputs) if hasattr(outputs, "to_tuple") else dict
        parts = {name: split(value, count) for name, value in outputs.items()}
        return [kind(**{name: values[index] for name, values in parts.items()}) for index in range(count)]
    if isinstance(outputs, tuple):
        fields = [split(value, count) for value in outputs]
        rows = (tuple(values[index] for values in fields) for index in range(count))
        return [type(outputs)(*row) if hasattr(outputs, "_fields") else row for row in rows]
    return [outputs] * count
