"""Inputs of tests: token ids that never contain a special token, and padded batches with their masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FIRST_ORDINARY_TOKEN = 3
VOCABULARY = 128
PAD = 0


class Batch(NamedTuple):
    """Token ids, attention mask and positions, each `[batch, length]`; the mask is 0 and the id `PAD` in padding."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor


def token_ids(batch: int = 2, length: int = 20, seed: int = 0) -> Tensor:
    """Random ordinary token ids `[batch, length]`."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_ORDINARY_TOKEN, VOCABULARY, (batch, length), generator=random)


def padded_batch(lengths: tuple[int, ...] = (20, 11, 1), side: str = "left", seed: int = 0) -> Batch:
    """Rows of these lengths, padded on `side` to the longest; positions count the tokens of each row from 0."""
    longest = max(lengths)
    ids = token_ids(len(lengths), longest, seed)
    counted = torch.arange(longest).expand_as(ids)
    own = torch.tensor(lengths)[:, None]
    mask = (counted >= longest - own) if side == "left" else (counted < own)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return Batch(ids.where(mask, torch.tensor(PAD)), mask.long(), positions)
