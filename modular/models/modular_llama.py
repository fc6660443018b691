"""Llama: a decoder-only transformer (LLaMA, 2302.13971; Llama 2, 2307.09288; Llama 3, 2407.21783).

Pre-norm blocks of RMSNorm (1910.07467), grouped-query attention (2305.13245) with rotary positions (2104.09864) and a
SwiGLU feed-forward (2002.05202).

Shapes: B batch, S tokens of this call, T tokens that they can see (past and new), H hidden size, I intermediate size,
N query heads, K key-value heads, D head size, V vocabulary, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.activations import ACTIVATIONS
from unibody.core.attention import ATTENTION, causal_mask
from unibody.core.cache import KVCache
from unibody.core.choices import choose
from unibody.core.command_line import generate_text
from unibody.core.config import PreTrainedConfig
from unibody.core.generation import GenerationMixin
from unibody.core.heads import last_token, sequence_loss, span_loss, token_loss
from unibody.core.outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from unibody.core.pretrained import PreTrainedModel
from unibody.core.rope import (
    default_frequencies,
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    yarn_frequencies,
)

__all__ = [
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForQuestionAnswering",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class LlamaConfig(PreTrainedConfig):
    """Sizes and options; the defaults are those that the Hub's config.json files leave out."""

    model_type: ClassVar[str] = "llama"
    base_model_tp_plan: ClassVar[dict[str, str]] = {  # how processes split the layers, by the names in the base model
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0  # 0: as many as query heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] = field(default_factory=dict)  # rope_theta, rope_type and what that type needs
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False
    initializer_range: float = 0.02
    pretraining_tp: int = 1  # how the original weights were split; kept for readers that know it
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self) -> None:
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        self.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0, **(self.rope_parameters or {})}

    @property
    def attention_windows(self) -> list[int | None]:
        """For each layer, how many tokens a query sees, itself included; None: all up to itself."""
        return [None] * self.num_hidden_layers


class LlamaRMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · weight over the last dimension (RMSNorm, 1910.07467, equation 4), the mean in float32."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * F.rms_norm(hidden, self.weight.shape, eps=self.variance_epsilon)


class LlamaRotaryEmbedding(nn.Module):
    """Cosine and sine [B, 1, S, D] of position · θ_i for the dimensions i and i + D/2, minus the sine for i."""

    inv_freq: Tensor
    variants: ClassVar[dict[str, Any]] = {
        "default": default_frequencies,
        "linear": linear_frequencies,
        "dynamic": dynamic_frequencies,
        "yarn": yarn_frequencies,
        "llama3": llama3_frequencies,
    }

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        inv_freq, self.attention_scaling = self.frequencies(length=0)
        self.register_buffer("inv_freq", inv_freq, persistent=False)  # [D/2]

    def frequencies(self, length: int) -> tuple[Tensor, float]:
        rope = {"original_max_position_embeddings": self.config.max_position_embeddings, **self.config.rope_parameters}
        compute = choose(self.variants, rope["rope_type"], "rope_type")
        try:
            return compute(rope, self.config.head_dim, length)
        except KeyError as key:
            raise ValueError(f"rope_type {rope['rope_type']!r} needs {key} in rope_parameters") from key

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        inv_freq = self.inv_freq
        if self.config.rope_parameters["rope_type"] == "dynamic":
            inv_freq = self.frequencies(length=int(position_ids.max()) + 1)[0].to(inv_freq.device)
        angles = position_ids[:, None, :, None] * inv_freq  # [B, 1, S, D/2]
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return torch.cat((cos, cos), -1).to(hidden.dtype), torch.cat((-sin, sin), -1).to(hidden.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the frequencies with the model, but leaves them in float32."""
        inv_freq = self.inv_freq
        super()._apply(fn, recurse)
        self.inv_freq = inv_freq.to(self.inv_freq.device)
        return self


def apply_rotary_pos_emb(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key with each pair of dimensions (i, i + D/2) turned by its angle (RoPE, 2104.09864, equation 34)."""
    half = query.shape[-1] // 2
    return query * cos + query.roll(half, -1) * sin, key * cos + key.roll(half, -1) * sin


class LlamaMLP(nn.Module):
    """down(act(gate(x)) · up(x)), with SiLU the SwiGLU of 2002.05202, equation 6."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = choose(ACTIVATIONS, config.hidden_act, "hidden_act")

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))  # H -> I -> H


class LlamaAttention(nn.Module):
    """Causal attention in which N / K query heads share a key-value head (grouped-query attention, 2305.13245)."""

    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        query_size, key_size = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=config.attention_bias)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, N, S, D], key and value [B, K, S, D] of hidden states [B, S, H], before rotation."""
        shape = (*hidden.shape[:2], -1, self.head_dim)
        query = self.q_proj(hidden).view(shape).transpose(1, 2)  # [B, S, N·D] -> [B, N, S, D]
        key = self.k_proj(hidden).view(shape).transpose(1, 2)  # [B, S, K·D] -> [B, K, S, D]
        value = self.v_proj(hidden).view(shape).transpose(1, 2)
        return query, key, value

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any) -> Tensor:
        query, key, value = self.project(hidden)
        query, key = apply_rotary_pos_emb(query, key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)  # [B, K, T, D]
        output = self.attend(query, key, value, mask)  # [B, N, S, D]
        return self.o_proj(output.transpose(1, 2).flatten(2))  # [B, S, N·D] -> [B, S, H]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attention = ATTENTION[self.config.attn_implementation]
        dropout = self.config.attention_dropout if self.training else 0.0
        return attention(query, key, value, mask, self.scaling, dropout)


class LlamaDecoderLayer(nn.Module):
    """Attention, then feed-forward, each on normed input and added to what came in."""

    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary, mask, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LlamaPreTrainedModel(PreTrainedModel):
    """What the classes below share."""

    config_class = LlamaConfig
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer"]

    def get_input_embeddings(self) -> nn.Embedding:
        return self.base_model.embed_tokens


class LlamaModel(LlamaPreTrainedModel):
    """The decoder without a head."""

    auto_class = "AutoModel"

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Hidden states [B, S, H] of `input_ids` [B, S] or `inputs_embeds` [B, S, H], which follow the cached tokens.

        `attention_mask` [B, past + S] is 0 where a token, cached or new, is padding. Positions count from the first
        cached token unless `position_ids` [B, S] says otherwise.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the model reads either input_ids or inputs_embeds: give one of them")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # [B, S, H]
        windows, cache = self.config.attention_windows, past_key_values
        if cache is None and (self.config.use_cache and not self.training if use_cache is None else use_cache):
            cache = KVCache(windows)
        if position_ids is None:
            past = 0 if cache is None else cache.length
            position_ids = torch.arange(past, past + hidden.shape[1], device=hidden.device)[None]  # [1, S]
        rotary = self.rotary_emb(hidden, position_ids)
        masks = {window: causal_mask(hidden, cache, window, attention_mask) for window in set(windows)}
        for layer, window in zip(self.layers, windows, strict=True):
            hidden = layer(hidden, rotary, masks[window], cache)
        return BaseModelOutputWithPast(self.norm(hidden), cache)


class LlamaForCausalLM(LlamaPreTrainedModel, GenerationMixin):
    """The decoder that predicts the next token."""

    auto_class = "AutoModelForCausalLM"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S, V], if asked of the last tokens only; `labels` [B, S] are the tokens themselves, or -100."""
        outputs = self.model(input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache)
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])  # [B, S, V]
        loss = None if labels is None else token_loss(logits[:, :-1], labels[:, 1:])
        return CausalLMOutputWithPast(loss, logits, outputs.past_key_values)


class LlamaForSequenceClassification(LlamaPreTrainedModel):
    """The decoder that labels whole sequences, by their last token."""

    auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [B, L]; `labels` as in sequence_loss, `inputs` as in the model without a head."""
        hidden = self.model(input_ids, attention_mask, **inputs).last_hidden_state
        logits = self.score(last_token(hidden, input_ids, self.config.pad_token_id))  # [B, H] -> [B, L]
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(loss, logits)


class LlamaForTokenClassification(LlamaPreTrainedModel):
    """The decoder that labels every token."""

    auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        rate = getattr(config, "classifier_dropout", None)
        self.dropout = nn.Dropout(0.1 if rate is None else rate)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> TokenClassifierOutput:
        """Logits [B, S, L]; `labels` [B, S], where -100 is none."""
        hidden = self.model(input_ids, attention_mask, **inputs).last_hidden_state
        logits = self.score(self.dropout(hidden))  # [B, S, H] -> [B, S, L]
        return TokenClassifierOutput(None if labels is None else token_loss(logits, labels), logits)


class LlamaForQuestionAnswering(LlamaPreTrainedModel):
    """The decoder that marks the answer to a question in a text."""

    auto_class = "AutoModelForQuestionAnswering"
    base_model_prefix = "transformer"

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, LlamaModel(config))
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Logits [B, S] of the answer's first and last token, whose positions are [B]."""
        hidden = self.base_model(input_ids, attention_mask, **inputs).last_hidden_state
        start_logits, end_logits = self.qa_outputs(hidden).unbind(-1)  # [B, S, 2] -> twice [B, S]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        return QuestionAnsweringModelOutput(loss, start_logits, end_logits)


def main() -> None:
    generate_text(LlamaForCausalLM)
