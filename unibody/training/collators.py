"""Collators: rows of a dataset to one batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a label that counts for nothing


def to_tensor(values: list[Any]) -> Tensor:
    """One tensor of a column: rows stacked; lists and numbers of Python and numpy are taken too."""
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    if hasattr(values[0], "__array__"):
        return torch.stack([torch.as_tensor(value) for value in values])
    return torch.tensor(values)


def default_data_collator(features: list[Any], return_tensors: str = "pt") -> dict[str, Any]:
    """The columns of rows of equal shape, stacked; `label` and `label_ids` become `labels`, texts and None are left out."""
    require_torch(return_tensors)
    rows = [row if isinstance(row, Mapping) else vars(row) for row in features]
    first, batch = rows[0], dict[str, Any]()
    for name in ("label", "label_ids"):
        if first.get(name) is not None:
            batch["labels"] = to_tensor([row[name] for row in rows])
            if not batch["labels"].is_floating_point():
                batch["labels"] = batch["labels"].long()
    for name, value in first.items():
        if name not in ("label", "label_ids") and value is not None and not isinstance(value, str):
            try:
                batch[name] = to_tensor([row[name] for row in rows])
            except (RuntimeError, ValueError, TypeError) as error:
                raise ValueError(
                    f"the rows of column {name!r} make no tensor ({error}): if their lengths differ, "
                    "use DataCollatorWithPadding(tokenizer)"
                ) from error
    return batch


@dataclass
class DataCollatorWithPadding:
    """Rows padded to the longest, or as `padding` and `max_length` say, by their tokenizer; other columns stacked."""

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        require_torch(self.return_tensors)
        batch = pad(self.tokenizer, features, self.padding, self.max_length, self.pad_to_multiple_of)
        for name in ("label", "label_ids"):
            if name in batch:
                batch["labels"] = batch.pop(name)
        return batch


def without_labels(features: list[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The column that the labels are in, if there are any, and the rows without it."""
    column = "label" if "label" in features[0] else "labels"
    return column, [{name: value for name, value in row.items() if name != column} for row in features]


@dataclass
class DataCollatorForTokenClassification:
    """As DataCollatorWithPadding, and the labels of padding are `label_pad_token_id`."""

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        require_torch(self.return_tensors)
        column, inputs = without_labels(features)
        batch = pad(self.tokenizer, inputs, self.padding, self.max_length, self.pad_to_multiple_of)
        if column in features[0]:
            rows = [torch.as_tensor(row[column]).tolist() for row in features]
            length = batch["input_ids"].shape[1]
            batch[column] = pad_labels(self.tokenizer, rows, length, self.label_pad_token_id)
        return batch


@dataclass
class DataCollatorForSeq2Seq:
    """As DataCollatorWithPadding, and labels padded to the longest among them: for labels that somebody has made already.

    `model` is not needed by models that read and write one text. With `padding="max_length"` labels have that length too.
    """

    tokenizer: Any
    model: Any = None
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        require_torch(self.return_tensors)
        column, inputs = without_labels(features)
        batch = pad(self.tokenizer, inputs, self.padding, self.max_length, self.pad_to_multiple_of)
        if features[0].get(column) is not None:
            rows = [torch.as_tensor(row[column]).tolist() for row in features]
            length = max(map(len, rows))
            if self.padding == "max_length" and self.max_length is not None:
                length = max(length, self.max_length)
            multiple = self.pad_to_multiple_of or 1
            length = -(-length // multiple) * multiple
            batch["labels"] = pad_labels(self.tokenizer, rows, length, self.label_pad_token_id)
        return batch


@dataclass
class DataCollatorForLanguageModeling:
    """Padded rows with labels: the tokens themselves, or for a masked model (BERT, 1810.04805, section 3.1) those to guess.

    Of the tokens that are not special, `mlm_probability` are to be guessed: `mask_replace_prob` of these become the mask,
    `random_replace_prob` any token, the others stay. With `seed` the collator has random numbers of its own.
    """

    tokenizer: Any
    mlm: bool = True
    mlm_probability: float | None = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"
    seed: int | None = None
    generator: torch.Generator | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_torch(self.return_tensors)
        if self.mlm and self.tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token, which mlm=True needs: for a causal model set mlm=False")
        if self.mlm and (self.mlm_probability is None or not 0 <= self.mlm_probability <= 1):
            raise ValueError(f"mlm_probability is {self.mlm_probability}: it must be from 0 to 1")
        shares = (self.mask_replace_prob, self.random_replace_prob)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"mask_replace_prob and random_replace_prob are {shares}: their sum must be at most 1")
        if self.seed is not None:
            self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, features: list[Any]) -> dict[str, Any]:
        rows = [row if isinstance(row, Mapping) else {"input_ids": row} for row in features]
        batch = pad(self.tokenizer, rows, multiple=self.pad_to_multiple_of)
        special = batch.pop("special_tokens_mask", None)
        if self.mlm:
            batch["input_ids"], batch["labels"] = self.torch_mask_tokens(batch["input_ids"], special)
        else:
            labels = batch.get("labels", batch["input_ids"]).clone()
            if self.tokenizer.pad_token_id is not None:
                labels[labels == self.tokenizer.pad_token_id] = IGNORED
            batch["labels"] = labels
        return batch

    def torch_mask_tokens(self, inputs: Tensor, special_tokens_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [B, S] with masks, and labels that are ignored where nothing is to be guessed."""
        inputs, labels = inputs.clone(), inputs.clone()
        if special_tokens_mask is None:
            rows = [
                self.tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in labels.tolist()
            ]
            special_tokens_mask = torch.tensor(rows)
        chances = torch.full(labels.shape, self.mlm_probability or 0.0).masked_fill(special_tokens_mask.bool(), 0.0)
        guessed = self.draw(chances)
        labels[~guessed] = IGNORED
        masked = self.draw(torch.full(labels.shape, self.mask_replace_prob)) & guessed
        inputs[masked] = self.tokenizer.mask_token_id
        if self.mask_replace_prob < 1 and self.random_replace_prob > 0:
            share = self.random_replace_prob / (1 - self.mask_replace_prob)
            replaced = self.draw(torch.full(labels.shape, share)) & guessed & ~masked
            tokens = torch.randint(len(self.tokenizer), labels.shape, generator=self.generator)
            inputs[replaced] = tokens[replaced]
        return inputs, labels

    def draw(self, chances: Tensor) -> Tensor:
        return torch.bernoulli(chances, generator=self.generator).bool()


def pad(
    tokenizer: Any,
    features: Sequence[Mapping[str, Any]],
    padding: bool | str = True,
    max_length: int | None = None,
    multiple: int | None = None,
) -> dict[str, Any]:
    """Rows padded by the tokenizer; only where lengths differ does that need its padding token."""
    plain = [{name: value for name, value in row.items() if not isinstance(value, str)} for row in features]
    found = tokenizer.pad(
        plain, padding=padding, max_length=max_length, pad_to_multiple_of=multiple, return_tensors="pt"
    )
    return dict(found)


def pad_labels(tokenizer: Any, rows: list[list[int]], length: int, value: int) -> Tensor:
    """Labels [B, length], with `value` on the side on which the tokenizer pads."""
    left = tokenizer.padding_side == "left"
    gaps = ([value] * (length - len(row)) for row in rows)
    return torch.tensor([gap + row if left else row + gap for row, gap in zip(rows, gaps, strict=True)])


def require_torch(return_tensors: str) -> None:
    if return_tensors != "pt":
        raise ValueError(f"return_tensors is {return_tensors!r}: batches are tensors of torch, 'pt'")
