"""Gemma 2: a Gemma with norms on both sides of each block, capped scores and logits, and a window on every other layer
(2408.00118, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core import removed
from unibody.core.activations import ACTIVATIONS
from unibody.core.choices import choose

from .modular_gemma import (
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    GemmaForTokenClassification,
    GemmaModel,
    GemmaPreTrainedModel,
    GemmaRMSNorm,
)
from .modular_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP

__all__ = [
    "Gemma2Config",
    "Gemma2ForCausalLM",
    "Gemma2ForSequenceClassification",
    "Gemma2ForTokenClassification",
    "Gemma2Model",
    "Gemma2PreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class Gemma2Config(GemmaConfig):
    model_type: ClassVar[str] = "gemma2"

    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    hidden_activation: str = "gelu_pytorch_tanh"
    query_pre_attn_scalar: float = 256  # scores are divided by its root
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    sliding_window: int | None = 4096  # tokens that a query sees in a layer with a window, itself included
    layer_types: list[str] = field(
        default_factory=list
    )  # by default every other layer, the first included, has a window
    hidden_act = removed

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = ("sliding_attention", "full_attention")
        self.layer_types = self.layer_types or [kinds[layer % 2] for layer in range(self.num_hidden_layers)]

    @property
    def attention_windows(self) -> list[int | None]:
        return [self.sliding_window if kind == "sliding_attention" else None for kind in self.layer_types]


class Gemma2RMSNorm(GemmaRMSNorm):
    pass


class Gemma2MLP(LlamaMLP):
    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.act_fn = choose(ACTIVATIONS, config.hidden_activation, "hidden_activation")


class Gemma2Attention(LlamaAttention):
    def __init__(self, config: Gemma2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.scaling = config.query_pre_attn_scalar**-0.5
        self.cap = config.attn_logit_softcapping

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Scores s bounded by c · tanh(s / c) before the softmax, which no fused kernel does."""
        if not self.cap:
            return super().attend(query, key, value, mask)
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))  # K -> N heads
        scores = self.cap * torch.tanh(query @ key.transpose(2, 3) * self.scaling / self.cap)  # [B, N, S, T]
        if mask is None and query.shape[2] > 1:
            mask = torch.ones_like(scores, dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1, torch.float32).to(value.dtype)
        return F.dropout(weights, self.config.attention_dropout, self.training) @ value


class Gemma2DecoderLayer(LlamaDecoderLayer):
    """Attention, then feed-forward, each normed before and after and added to what came in."""

    def __init__(self, config: Gemma2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.pre_feedforward_layernorm = Gemma2RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = Gemma2RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden), rotary, mask, cache)
        hidden = hidden + self.post_attention_layernorm(attended)
        return hidden + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(hidden)))


class Gemma2CappedHead(nn.Linear):
    """Logits x Wᵀ, bounded by c · tanh(logit / c)."""

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config.hidden_size, config.vocab_size, bias=False)
        self.cap = config.final_logit_softcapping

    def forward(self, hidden: Tensor) -> Tensor:
        logits = super().forward(hidden)
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


class Gemma2PreTrainedModel(GemmaPreTrainedModel):
    pass


class Gemma2Model(GemmaModel):
    pass


class Gemma2ForCausalLM(GemmaForCausalLM):
    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.lm_head = Gemma2CappedHead(config)
        self.post_init()


class Gemma2ForSequenceClassification(GemmaForSequenceClassification):
    pass


class Gemma2ForTokenClassification(GemmaForTokenClassification):
    pass
