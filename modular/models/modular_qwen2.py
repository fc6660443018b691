"""Qwen2 and Qwen2.5: a Llama with biases on query, key and value, and a window on its later layers (2407.10671, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from unibody.core import removed

from .modular_llama import (
    LlamaAttention,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)

__all__ = [
    "Qwen2Config",
    "Qwen2ForCausalLM",
    "Qwen2ForQuestionAnswering",
    "Qwen2ForSequenceClassification",
    "Qwen2ForTokenClassification",
    "Qwen2Model",
    "Qwen2PreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class Qwen2Config(LlamaConfig):
    model_type: ClassVar[str] = "qwen2"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int = 32
    max_position_embeddings: int = 32768
    use_sliding_window: bool = False
    sliding_window: int | None = 4096  # tokens that a query sees in a layer with a window, itself included
    max_window_layers: int = 28  # the first layer with a window
    layer_types: list[str] = field(default_factory=list)  # by default from the two above
    attention_bias: ClassVar[bool] = True  # of query, key and value; config.json has no key for it
    mlp_bias: ClassVar[bool] = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pretraining_tp = removed

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sliding_window = self.sliding_window if self.use_sliding_window else None
        first = self.max_window_layers if self.use_sliding_window else self.num_hidden_layers
        self.layer_types = self.layer_types or [
            "full_attention" if layer < first else "sliding_attention" for layer in range(self.num_hidden_layers)
        ]

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if self.head_dim == self.hidden_size // self.num_attention_heads:
            del values["head_dim"]  # the Hub's files do not name it
        return values

    @property
    def attention_windows(self) -> list[int | None]:
        return [self.sliding_window if kind == "sliding_attention" else None for kind in self.layer_types]


class Qwen2Attention(LlamaAttention):
    def __init__(self, config: Qwen2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=False)


class Qwen2PreTrainedModel(LlamaPreTrainedModel):
    pass


class Qwen2Model(LlamaModel):
    pass


class Qwen2ForCausalLM(LlamaForCausalLM):
    pass


class Qwen2ForSequenceClassification(LlamaForSequenceClassification):
    pass


class Qwen2ForTokenClassification(LlamaForTokenClassification):
    pass


class Qwen2ForQuestionAnswering(LlamaForQuestionAnswering):
    pass
