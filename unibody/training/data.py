"""Which examples a step sees: a function of the seed, the epoch and the number of the batch, and of nothing else.

So a run can begin at any batch without reading those before it, whatever the number of workers; and what a collator draws (masks)
is the same when the batch is made again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from unibody.training.arguments import TrainingArguments
from unibody.training.choices import SamplingStrategy
from unibody.training.randomness import seeded

Collator = Callable[[list[Any]], Any]
EVALUATION = -1  # the epoch of a pass that does not train


def epoch_order(length: int, args: TrainingArguments, epoch: int) -> list[int]:
    """The examples' indices in the order of this epoch: a permutation drawn from seed + epoch."""
    if args.train_sampling_strategy == SamplingStrategy.SEQUENTIAL:
        return list(range(length))
    seed = args.seed if args.data_seed is None else args.data_seed
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def grouped_by_length(order: list[int], lengths: Sequence[int], step: int) -> list[int]:
    """The order sorted by length, the longest first, within each of its parts; a part is 50 steps, or less of a small dataset.

    So the examples of a batch are about equally long, and still others in each epoch. The longest of all comes first: if memory
    runs out, it does at once.
    """
    size = step * max(1, min(50, len(order) // (4 * step)))
    parts = [
        sorted(order[start : start + size], key=lambda index: -lengths[index]) for start in range(0, len(order), size)
    ]
    longest = max(parts, key=lambda part: lengths[part[0]])
    parts[0][0], longest[0] = longest[0], parts[0][0]
    return [index for part in parts for index in part]


def find_lengths(dataset: Any, column: str, inputs: str = "input_ids") -> list[int]:
    """The length of each example: what its column says, or how many `inputs` it has. ValueError: it has neither."""
    if column in (getattr(dataset, "column_names", None) or ()):
        return list(dataset[column])
    examples = [dataset[index] for index in range(len(dataset))]
    for name, length in ((column, int), (inputs, len)):
        if examples and all(isinstance(row, Mapping) and name in row for row in examples):
            return [length(row[name]) for row in examples]
    raise ValueError(
        f"the examples have neither {column!r} nor {inputs!r}, by which to group them: name a column in length_column_name"
    )


def shard(order: Sequence[int], batch_size: int, shards: int, index: int, drop_last: bool) -> list[Sequence[int]]:
    """The batches of one of several shards, which get them in turn; all get equally many of equal sizes.

    What is lacking at the end is taken from the beginning, unless `drop_last`.
    """
    every, whole = list(order), batch_size * shards
    if drop_last:
        every = every[: len(every) - len(every) % whole]
    elif shards > 1 and every:
        every += [every[i % len(every)] for i in range(-len(every) % whole)]
    batches: list[Sequence[int]] = [every[start : start + batch_size] for start in range(0, len(every), batch_size)]
    return batches[index::shards]


class Batches(Dataset[Any]):
    """Batches by (number, indices): the examples, collated; random numbers drawn on the way follow from the number."""

    def __init__(self, dataset: Any, collate: Collator, seeds: Sequence[int]) -> None:
        self.dataset, self.collate, self.seeds = dataset, collate, tuple(seeds)

    def __getitem__(self, key: Any) -> Any:
        number, indices = key
        with seeded(*self.seeds, number):
            return self.collate([self.dataset[index] for index in indices])


class StreamedBatches(IterableDataset[Any]):
    """Batches of a dataset that can only be iterated: shards take them in turn, and `skip` of a shard are passed over."""

    def __init__(self, dataset: Any, collate: Collator, seeds: Sequence[int], args: TrainingArguments) -> None:
        self.dataset, self.collate, self.seeds, self.args = dataset, collate, tuple(seeds), args
        self.size, self.shards, self.index, self.skip = args.train_batch_size, 1, 0, 0

    def __iter__(self) -> Iterator[Any]:
        with seeded(*self.seeds):
            examples = iter(self.dataset)
        number = 0
        while True:
            with seeded(*self.seeds, number):
                rows = list(islice(examples, self.size * self.shards))
                whole = len(rows) == self.size * self.shards
                if not rows or (not whole and self.args.dataloader_drop_last):
                    return
                if not whole and self.shards > 1:
                    rows += [rows[i % len(rows)] for i in range(self.size * self.shards - len(rows))]
                if number >= self.skip:
                    yield self.collate(rows[self.index * self.size : (self.index + 1) * self.size])
            number += 1


class EpochLoader:
    """The training batches of one process, epoch by epoch; `start(epoch, skip)` says which come next."""

    def __init__(self, dataset: Any, collate: Collator, args: TrainingArguments, shards: int, index: int) -> None:
        self.dataset, self.collate, self.args = dataset, collate, args
        self.shards, self.index, self.epoch, self.skip = shards, index, 0, 0
        self.lengths: list[int] | None = None  # once they are needed
        self.has_length = not isinstance(dataset, IterableDataset) and hasattr(dataset, "__len__")

    def start(self, epoch: int, skip: int = 0) -> None:
        """Iteration gives the batches of this epoch from number `skip` on."""
        self.epoch, self.skip = epoch, skip

    def order(self) -> list[int]:
        """The examples of this epoch."""
        order = epoch_order(len(self.dataset), self.args, self.epoch)
        if self.args.train_sampling_strategy != SamplingStrategy.GROUP_BY_LENGTH:
            return order
        if self.lengths is None:
            self.lengths = find_lengths(self.dataset, self.args.length_column_name)
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.shards
        return grouped_by_length(order, self.lengths, step)

    def __len__(self) -> int:
        size, whole = self.args.train_batch_size, self.args.train_batch_size * self.shards
        if self.args.dataloader_drop_last:
            return len(self.dataset) // whole
        return math.ceil(len(self.dataset) / (whole if self.shards > 1 else size))

    def __iter__(self) -> Iterator[Any]:
        seeds = (self.args.seed, self.epoch, self.index)
        if not self.has_length:
            if hasattr(self.dataset, "set_epoch"):
                self.dataset.set_epoch(self.epoch)
            stream = StreamedBatches(self.dataset, self.collate, seeds, self.args)
            stream.shards, stream.index, stream.skip = self.shards, self.index, self.skip
            return iter(loader(stream, None, self.args, workers=min(1, self.args.dataloader_num_workers)))
        order = self.order()
        batches = shard(order, self.args.train_batch_size, self.shards, self.index, self.args.dataloader_drop_last)
        keys = list(enumerate(batches))[self.skip :]
        return iter(loader(Batches(self.dataset, self.collate, seeds), keys, self.args))


def evaluation_loader(dataset: Any, collate: Collator, args: TrainingArguments, shards: int, index: int) -> Any:
    """The batches of one shard, in the data's order, of which the shards take turns.

    Each gets equally many: one that would have none gets the first again, and `loader.real` says how many count.
    """
    size, seeds = args.eval_batch_size, (args.seed, EVALUATION)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        dataset = list(dataset)
    every = [(start // size, range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]
    mine = every[index::shards]
    padding = every[:1] * (-(-len(every) // shards) - len(mine))
    found = loader(Batches(dataset, collate, seeds), mine + padding, args)
    found.real = len(mine)
    return found


def loader(batches: Any, keys: Any, args: TrainingArguments, workers: int | None = None) -> Any:
    """torch's loader over ready batches, which takes no random numbers from anyone."""
    workers = args.dataloader_num_workers if workers is None else workers
    return DataLoader(
        batches,
        sampler=keys,
        batch_size=None,
        collate_fn=unchanged,
        num_workers=workers,
        pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        prefetch_factor=args.dataloader_prefetch_factor if workers else None,
        multiprocessing_context=args.dataloader_multiprocessing_context if workers else None,
        generator=torch.Generator(),
    )


def unchanged(batch: Any) -> Any:
    return batch


class ColumnFilter:
    """A collator that passes over the columns that the model's forward does not name."""

    def __init__(self, collate: Collator, names: Iterable[str]) -> None:
        self.collate, self.names = collate, frozenset(names)

    def __call__(self, features: list[Any]) -> Any:
        if features and isinstance(features[0], Mapping):
            features = [{name: row[name] for name in row if name in self.names} for row in features]
            if not features[0]:
                raise ValueError(
                    f"the examples have no column that the model takes ({', '.join(sorted(self.names))}): "
                    "rename them, or set remove_unused_columns=False"
                )
        return self.collate(features)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def forward_names(model: nn.Module) -> set[str] | None:
    """The inputs that a model's forward names, also those that it passes on; None: it takes any."""
    names: set[str] = set()
    while True:
        parameters = inspect.signature(model.forward).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            return names
        inner = getattr(model, "base_model", None)
        if inner is None or inner is model:
            return None if inner is None else names
        model = inner
