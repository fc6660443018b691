"""What models return: named tuples, so that they unpack, index and pass through torch.compile like any tuple.

The loss is there if the labels were given. Sizes: B batch, S tokens, H hidden, V vocabulary, L labels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class BaseModelOutputWithPast(NamedTuple):
    last_hidden_state: Tensor  # [B, S, H], after the last norm
    past_key_values: Any = None  # the cache, which now holds these tokens too


class BaseModelOutputWithPooling(NamedTuple):
    last_hidden_state: Tensor  # [B, S, H]
    pooler_output: Tensor | None = None  # [B, H], what stands for the whole text


class CausalLMOutputWithPast(NamedTuple):
    loss: Tensor | None
    logits: Tensor  # [B, S, V], of the token that follows
    past_key_values: Any = None


class MaskedLMOutput(NamedTuple):
    loss: Tensor | None
    logits: Tensor  # [B, S, V], of the token itself


class SequenceClassifierOutput(NamedTuple):
    loss: Tensor | None
    logits: Tensor  # [B, L]


class TokenClassifierOutput(NamedTuple):
    loss: Tensor | None
    logits: Tensor  # [B, S, L]


class QuestionAnsweringModelOutput(NamedTuple):
    loss: Tensor | None
    start_logits: Tensor  # [B, S], of the answer's first token
    end_logits: Tensor  # [B, S], of its last
