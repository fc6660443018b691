"""Mistral 7B: a Llama whose layers see a sliding window of tokens (2310.06825, section 2).

A layer's query attends to the `sliding_window` newest tokens, itself included; depth carries information further back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unibody.core import removed

from .modular_llama import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)
from .modular_llama import main as main

__all__ = [
    "MistralConfig",
    "MistralForCausalLM",
    "MistralForQuestionAnswering",
    "MistralForSequenceClassification",
    "MistralForTokenClassification",
    "MistralModel",
    "MistralPreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class MistralConfig(LlamaConfig):
    model_type: ClassVar[str] = "mistral"

    intermediate_size: int = 14336
    num_key_value_heads: int = 8
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096  # tokens that a query sees, itself included; None: all
    attention_bias: ClassVar[bool] = False  # no projection has a bias, and config.json has no key for it
    mlp_bias: ClassVar[bool] = False
    pretraining_tp = removed

    @property
    def attention_windows(self) -> list[int | None]:
        return [self.sliding_window] * self.num_hidden_layers


class MistralPreTrainedModel(LlamaPreTrainedModel):
    pass


class MistralModel(LlamaModel):
    pass


class MistralForCausalLM(LlamaForCausalLM):
    pass


class MistralForSequenceClassification(LlamaForSequenceClassification):
    pass


class MistralForTokenClassification(LlamaForTokenClassification):
    pass


class MistralForQuestionAnswering(LlamaForQuestionAnswering):
    base_model_prefix = "model"
