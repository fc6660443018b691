"""From scores for the ends of an answer to answers: the likeliest spans of a text."""

from __future__ import annotations

import torch
from torch import Tensor


def best_spans(start: Tensor, end: Tensor, top_k: int, longest: int) -> list[tuple[int, int, float]]:
    """The `top_k` spans (first, last, score) of probabilities [S], best first: the product of both, at most `longest` tokens."""
    products = (start[:, None] * end[None, :]).triu().tril(longest - 1)  # [S, S]
    best = products.flatten().topk(min(top_k, products.numel()))
    return [
        (place // len(end), place % len(end), score)
        for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def end_probabilities(logits: Tensor, allowed: Tensor) -> Tensor:
    """Probabilities [S] of logits [S]; where it is not allowed, that of a logit of -10000."""
    return torch.where(allowed, logits.float(), torch.tensor(-10000.0)).softmax(-1)
