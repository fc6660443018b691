"""What ends a text."""

from __future__ import annotations

import os.path
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class StoppingCriteria:
    """Which texts [B, T] are finished [B]; `scores` are those of the steps so far, if they are to be returned."""

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(input_ids, scores)")


class StoppingCriteriaList(list[Any]):
    """A text is finished if one of the criteria says so; each may answer for all texts at once with a bool."""

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for criterion in self:
            done = done | torch.as_tensor(criterion(input_ids, scores, **options), device=input_ids.device)
        return done


class MaxLengthCriteria(StoppingCriteria):
    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.max_length, device=input_ids.device)


class MaxTimeCriteria(StoppingCriteria):
    """All texts end `max_time` seconds after the criterion was made, or after `initial_timestamp`."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.begin = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        return torch.full((len(input_ids),), time.time() - self.begin > self.max_time, device=input_ids.device)


class EosTokenCriteria(StoppingCriteria):
    """A text ends with one of these tokens."""

    def __init__(self, eos_token_id: int | Sequence[int]) -> None:
        self.eos_token_id = torch.tensor(eos_token_id, dtype=torch.long).flatten()

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        self.eos_token_id = self.eos_token_id.to(input_ids.device)
        return torch.isin(input_ids[:, -1], self.eos_token_id)


class StopStringCriteria(StoppingCriteria):
    """A text ends with the token that completes one of the strings, which may begin and end inside of tokens."""

    def __init__(self, tokenizer: Any, stop_strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        self.window = 8 + 2 * max(len(text.encode()) for text in self.stop_strings)  # tokens; few have no byte

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        tails = input_ids[:, -self.window :].tolist()
        return torch.tensor([self.completes(tail) for tail in tails], device=input_ids.device)

    def completes(self, ids: list[int]) -> bool:
        text, before = (self.tokenizer.decode(part, skip_special_tokens=False) for part in (ids, ids[:-1]))
        old = len(
            os.path.commonprefix((text, before.rstrip("\ufffd")))
        )  # a character that lacks bytes may yet become one
        return any(text.rfind(stop) + len(stop) > old for stop in self.stop_strings if stop in text)
