"""What makes tokens more or less likely for what the text already holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unibody.generation.processors import LogitsProcessor, ends_with, token_mask
from unibody.generation.values import bias_pairs


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Scores of tokens that the text holds, prompt included: divided by the penalty if positive, multiplied if not.

    CTRL (1909.05858, section 4.1), made to work below zero. The first `prompt_ignore_length` tokens, one number or one a row [B],
    do not count.
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Tensor | None = None) -> None:
        if penalty <= 0:
            raise ValueError(f"repetition_penalty={penalty!r}: expected a number above 0")
        self.penalty = penalty
        self.prompt_ignore_length = 0 if prompt_ignore_length is None else prompt_ignore_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        first = torch.as_tensor(self.prompt_ignore_length, device=scores.device).reshape(-1, 1)
        counted = torch.arange(input_ids.shape[1], device=scores.device) >= first  # [B or 1, T]
        counts = torch.zeros_like(scores).scatter_add(1, input_ids, counted.expand_as(input_ids).to(scores.dtype))
        penalized = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(counts > 0, penalized, scores)


class FrequencyPenaltyLogitsProcessor(LogitsProcessor):
    """score(t) − penalty · count(t), where count(t) is how often t was generated: the prompt does not count.

    As OpenAI's API and vLLM define it, additive; transformers has no such option.
    """

    def __init__(self, penalty: float, prompt_length: int) -> None:
        self.penalty = penalty
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores - self.penalty * self.counts(input_ids, scores)

    def counts(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = input_ids[:, self.prompt_length :]
        return torch.zeros_like(scores).scatter_add(1, new, torch.ones_like(new, dtype=scores.dtype))


class PresencePenaltyLogitsProcessor(FrequencyPenaltyLogitsProcessor):
    """score(t) − penalty if t was generated, once or often: what else is said of the frequency penalty holds."""

    def counts(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return super().counts(input_ids, scores).clamp(max=1)


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Adds a bias to the last token of each sequence where the text ends with what comes before it."""

    def __init__(self, sequence_bias: Any) -> None:
        self.biases = [(list(ids), float(bias)) for ids, bias in bias_pairs(sequence_bias)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        beyond = sorted({i for ids, _ in self.biases for i in ids if i >= scores.shape[-1]})
        if beyond:
            raise ValueError(
                f"tokens {beyond} of bad_words_ids or sequence_bias: the vocabulary has {scores.shape[-1]}"
            )
        bias = torch.zeros_like(scores)
        for ids, value in self.biases:
            bias[:, ids[-1]] += torch.where(ends_with(input_ids, ids[:-1]), value, 0.0).to(scores.dtype)
        return scores + bias


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """From `start` new tokens on, ends of text become likelier: score + |score| · (factor^(tokens since) − 1)."""

    def __init__(
        self, exponential_decay_length_penalty: Sequence[float], eos_token_id: Sequence[int], input_ids_seq_length: int
    ) -> None:
        start, self.factor = exponential_decay_length_penalty
        self.start = int(start) + input_ids_seq_length
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        since = input_ids.shape[1] - self.start
        if since <= 0:
            return scores
        likelier = scores + scores.abs() * (self.factor**since - 1)
        ends = token_mask(self.eos_token_id, scores) & scores.isfinite()  # what is forbidden stays so
        return torch.where(ends, likelier, scores)
