"""What forbids tokens, or all but some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unibody.generation.penalties import SequenceBiasLogitsProcessor
from unibody.generation.processors import LogitsProcessor, token_mask


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """No n tokens stand in a text twice in the same order."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = ngram_size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        n = self.ngram_size
        if input_ids.shape[1] < n:
            return scores
        ngrams = input_ids.unfold(1, n, 1)  # [B, T - n + 1, n]
        tail = input_ids[:, input_ids.shape[1] - n + 1 :]  # [B, n - 1]
        begun = (ngrams[:, :, :-1] == tail[:, None]).all(-1)
        banned = torch.zeros_like(scores).scatter_add(1, ngrams[:, :, -1], begun.to(scores.dtype))
        return scores.masked_fill(banned > 0, -torch.inf)


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """None of the sequences is completed; an end of text alone is no bad word."""

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Sequence[int] | None = None) -> None:
        ends = [[token] for token in eos_token_id or ()]
        super().__init__([[list(ids), -torch.inf] for ids in bad_words_ids if list(ids) not in ends])


class MinLengthLogitsProcessor(LogitsProcessor):
    """No end of text before the text, prompt included, has this many tokens."""

    def __init__(self, min_length: int, eos_token_id: Sequence[int]) -> None:
        self.min_length = min_length
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] >= self.min_length:
            return scores
        return scores.masked_fill(token_mask(self.eos_token_id, scores), -torch.inf)


class MinNewTokensLengthLogitsProcessor(MinLengthLogitsProcessor):
    """No end of text before there are this many tokens after the prompt."""

    def __init__(self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: Sequence[int]) -> None:
        super().__init__(prompt_length_to_skip + min_new_tokens, eos_token_id)


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Only the tokens that a function names for the prompt's number and the text so far."""

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Tensor], Any], num_beams: int) -> None:
        self.allowed = prefix_allowed_tokens_fn
        self.num_beams = num_beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        masks = []
        for row, ids in enumerate(input_ids):
            allowed = self.allowed(row // self.num_beams, ids)
            if len(allowed) == 0:
                raise ValueError(
                    f"prefix_allowed_tokens_fn allows no token for prompt {row // self.num_beams} after {ids.tolist()}: "
                    "name at least the end of the text"
                )
            masks.append(token_mask(allowed, scores))
        return scores.masked_fill(~torch.stack(masks), -torch.inf)


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """One token comes first: the one after a prompt of a single token, as models that translate have it."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = bos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return only([self.bos_token_id], scores) if input_ids.shape[1] == 1 else scores


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """The last token of the longest text is an end of text."""

    def __init__(self, max_length: int, eos_token_id: Sequence[int]) -> None:
        self.max_length = max_length
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return only(self.eos_token_id, scores) if input_ids.shape[1] == self.max_length - 1 else scores


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Never these tokens."""

    def __init__(self, suppress_tokens: Sequence[int]) -> None:
        self.suppress_tokens = suppress_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.masked_fill(token_mask(self.suppress_tokens, scores), -torch.inf)


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """None of these tokens right after the prompt."""

    def __init__(self, begin_suppress_tokens: Sequence[int], begin_index: int) -> None:
        super().__init__(begin_suppress_tokens)
        self.begin_index = begin_index

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return super().__call__(input_ids, scores) if input_ids.shape[1] == self.begin_index else scores


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """NaN becomes 0 and infinite scores the largest and smallest finite ones, so that generation goes on."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        limits = torch.finfo(scores.dtype)
        return scores.nan_to_num(nan=0.0, posinf=limits.max, neginf=limits.min)


def only(tokens: Sequence[int], scores: Tensor) -> Tensor:
    return torch.full_like(scores, -torch.inf).masked_fill(token_mask(tokens, scores), 0.0)
