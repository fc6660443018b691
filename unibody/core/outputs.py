"""What models return: named tuples, so that they unpack, index and pass through torch.compile like any tuple."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class BaseModelOutputWithPast(NamedTuple):
    """Hidden states [B, S, H] after the last norm, and the cache that now holds these tokens."""

    last_hidden_state: Tensor
    past_key_values: Any = None


class CausalLMOutputWithPast(NamedTuple):
    """Scores of the next token [B, S, V], the loss if labels were given, and the cache that now holds these tokens."""

    loss: Tensor | None
    logits: Tensor
    past_key_values: Any = None


class SequenceClassifierOutput(NamedTuple):
    """Scores of each label [B, L] for whole sequences, and the loss if labels were given."""

    loss: Tensor | None
    logits: Tensor


class TokenClassifierOutput(NamedTuple):
    """Scores of each label [B, S, L] for every token, and the loss if labels were given."""

    loss: Tensor | None
    logits: Tensor


class QuestionAnsweringModelOutput(NamedTuple):
    """Scores [B, S] of each token as the first and as the last of the answer, and the loss if positions were given."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor
