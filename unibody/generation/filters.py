"""What sampling draws from: tokens that are too unlikely get no chance. p are the probabilities that scores stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from unibody.generation.processors import LogitsProcessor


class TemperatureLogitsWarper(LogitsProcessor):
    """Scores divided by the temperature: below 1 the likely become likelier."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


class Filter(LogitsProcessor):
    """Scores of `filter_value` for the tokens [B, V] that `drop` names, save the `min_tokens_to_keep` likeliest."""

    def __init__(self, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        self.filter_value = filter_value
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.masked_fill(self.drop(scores), self.filter_value)

    def drop(self, scores: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no drop(scores)")

    def worst_kept(self, scores: Tensor, count: int) -> Tensor:
        """The score [B, 1] of the likeliest token but `count` - 1."""
        return scores.topk(min(count, scores.shape[-1])).values[:, -1:]


class TopKLogitsWarper(Filter):
    """The k likeliest tokens stay."""

    def __init__(self, top_k: int, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_k = top_k

    def drop(self, scores: Tensor) -> Tensor:
        return scores < self.worst_kept(scores, max(self.top_k, self.min_tokens_to_keep))


class TopPLogitsWarper(Filter):
    """The fewest tokens stay that together have the probability `top_p` (nucleus sampling, 1904.09751)."""

    def __init__(self, top_p: float, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_p = top_p

    def drop(self, scores: Tensor) -> Tensor:
        ascending, order = scores.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
        tail[:, -self.min_tokens_to_keep :] = False
        return tail.scatter(-1, order, tail)


class MinPLogitsWarper(Filter):
    """Tokens stay that have at least `min_p` times the probability of the likeliest (2407.01082, section 3)."""

    def __init__(self, min_p: float, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.min_p = min_p

    def drop(self, scores: Tensor) -> Tensor:
        p = scores.softmax(-1)
        best = scores.topk(min(self.min_tokens_to_keep, scores.shape[-1])).indices
        return (p < self.min_p * p.amax(-1, keepdim=True)).scatter(-1, best, False)


class TypicalLogitsWarper(Filter):
    """The fewest tokens stay that have together the probability `mass`, those first whose surprise is nearest to the entropy.

    Locally typical sampling (2202.00666, equation 9): |−log p − H(p)| is the distance.
    """

    def __init__(self, mass: float = 0.9, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.mass = mass

    def drop(self, scores: Tensor) -> Tensor:
        log_p = scores.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).nansum(-1, keepdim=True)
        distance, order = (-log_p - entropy).abs().sort(dim=-1)
        reached = scores.gather(-1, order).softmax(-1).cumsum(-1)
        last = (reached < self.mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        tail = distance > distance.gather(-1, last)
        tail[:, : self.min_tokens_to_keep] = False
        return tail.scatter(-1, order, tail)


class EpsilonLogitsWarper(Filter):
    """Tokens stay that have at least the probability ε (2210.15191, section 4)."""

    def __init__(self, epsilon: float, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = epsilon

    def drop(self, scores: Tensor) -> Tensor:
        return (scores.softmax(-1) < self.epsilon) & (scores < self.worst_kept(scores, self.min_tokens_to_keep))


class EtaLogitsWarper(Filter):
    """Tokens stay that have at least the probability η = min(ε, √ε · exp(−H(p))) (2210.15191, equation 5)."""

    def __init__(self, epsilon: float, filter_value: float = -torch.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = epsilon

    def drop(self, scores: Tensor) -> Tensor:
        p, log_p = scores.softmax(-1), scores.log_softmax(-1)
        entropy = -(p * log_p).nansum(-1, keepdim=True)
        eta: Tensor = ((-entropy).exp() * self.epsilon**0.5).clamp(max=self.epsilon)
        return (p < eta) & (scores < self.worst_kept(scores, self.min_tokens_to_keep))


class LogitNormalization(LogitsProcessor):
    """Scores that are logarithms of probabilities again, whatever came before."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.log_softmax(-1)
