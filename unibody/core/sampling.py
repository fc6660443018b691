"""Choosing the next token."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_tokens(
    logits: Tensor, do_sample: bool, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None
) -> Tensor:
    """The most likely tokens [B] for logits [B, V], or random ones: of the `top_k` best and of the nucleus `top_p`."""
    if not do_sample or temperature == 0:
        return logits.argmax(-1)
    if temperature < 0 or top_k < 0 or not 0 <= top_p <= 1:
        raise ValueError(
            f"temperature {temperature} and top_k {top_k} must be at least 0, top_p {top_p} within 0 and 1"
        )
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ascending, order = logits.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[:, -1] = False  # the best token stays, whatever top_p
        logits = logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
