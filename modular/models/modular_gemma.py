"""Gemma: a Llama with (1 + w) norms, scaled embeddings and a GELU gate (2403.08295, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core import removed

from .modular_llama import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
)

__all__ = [
    "GemmaConfig",
    "GemmaForCausalLM",
    "GemmaForSequenceClassification",
    "GemmaForTokenClassification",
    "GemmaModel",
    "GemmaPreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class GemmaConfig(LlamaConfig):
    model_type: ClassVar[str] = "gemma"

    vocab_size: int = 256000
    hidden_size: int = 3072
    intermediate_size: int = 24576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    mlp_bias: ClassVar[bool] = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    tie_word_embeddings: bool = True
    pretraining_tp = removed


class GemmaRMSNorm(LlamaRMSNorm):
    """x / √(mean(x²) + ε) · (1 + weight) over the last dimension, in float32; a weight of zero changes nothing."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__(size, eps)
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, hidden: Tensor) -> Tensor:
        normed = F.rms_norm(hidden.float(), self.weight.shape, eps=self.variance_epsilon)
        return (normed * (1.0 + self.weight.float())).type_as(hidden)


class GemmaScaledEmbedding(nn.Embedding):
    """Token embeddings times √H, the factor rounded to the type of the weights."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids) * torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype)


class GemmaPreTrainedModel(LlamaPreTrainedModel):
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GemmaRMSNorm):
            module.weight.data.zero_()


class GemmaModel(LlamaModel):
    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = GemmaScaledEmbedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.post_init()


class GemmaForCausalLM(LlamaForCausalLM):
    pass


class GemmaForSequenceClassification(LlamaForSequenceClassification):
    pass


class GemmaForTokenClassification(LlamaForTokenClassification):
    pass
