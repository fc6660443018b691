"""What changes the scores of the next token: the base of all processors, and lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class LogitsProcessor:
    """Scores [B, V] of the next token, for texts [B, T] so far, made from those that it is given, which it leaves as they are."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(input_ids, scores)")


class LogitsProcessorList(list[Any]):
    """Processors, each of which gets what the one before made."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


def token_mask(tokens: Sequence[int] | Tensor, scores: Tensor) -> Tensor:
    """[V], True at the tokens; those beyond the vocabulary do not count."""
    ids = torch.as_tensor(tokens, dtype=torch.long, device=scores.device).flatten()
    mask = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
    mask[ids[ids < scores.shape[-1]]] = True
    return mask


def ends_with(input_ids: Tensor, prefix: Sequence[int]) -> Tensor:
    """[B], True where a text ends with the prefix."""
    if len(prefix) > input_ids.shape[1]:
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    wanted = torch.tensor(list(prefix), dtype=torch.long, device=input_ids.device)
    return (input_ids[:, input_ids.shape[1] - len(prefix) :] == wanted).all(-1)
