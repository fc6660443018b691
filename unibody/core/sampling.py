"""Choosing the next token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def choose_tokens(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: Any) -> Tensor:
    """The most likely tokens [B] for logits [B, V]; at a temperature above 0, draws among the top k and top p."""
    if temperature == 0:
        return logits.argmax(-1)
    if temperature < 0 or top_k < 0 or not 0 <= top_p <= 1:
        raise ValueError(f"temperature {temperature} or top_k {top_k} is below 0, or top_p {top_p} not within 0 and 1")
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ascending, order = logits.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[:, -1] = False  # the best token stays, whatever top_p
        logits = logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
