"""A Llama whose feed-forward is a mixture of experts (2401.04088, section 2), in stacked weights, with plans of both kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unibody
from unibody.generated.models import modeling_llama as llama

ATTENTION = {
    "layers.*.self_attn.q_proj": "colwise",
    "layers.*.self_attn.k_proj": "colwise",
    "layers.*.self_attn.v_proj": "colwise",
    "layers.*.self_attn.o_proj": "rowwise",
}


@dataclass(kw_only=True, eq=False)
class MixtureConfig(llama.LlamaConfig):
    model_type: ClassVar[str] = "mixture"
    base_model_tp_plan: ClassVar[dict[str, str]] = {
        **ATTENTION,
        "layers.*.mlp.experts.gate_up_proj": "packed_colwise",
        "layers.*.mlp.experts.down_proj": "rowwise",
        "layers.*.mlp.experts": "moe_tp_experts",
    }
    base_model_ep_plan: ClassVar[dict[str, str]] = {
        "layers.*.mlp.experts.gate_up_proj": "grouped_gemm",
        "layers.*.mlp.experts.down_proj": "grouped_gemm",
        "layers.*.mlp.experts": "ep_dispatch_experts",
    }

    num_local_experts: int = 4
    num_experts_per_tok: int = 2


class Experts(nn.Module):
    """Of each token [T, H] the sum over its experts [T, k] of weight · down(silu(gate(x)) · up(x))."""

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        count, wide, narrow = config.num_local_experts, config.intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * wide, narrow))
        self.down_proj = nn.Parameter(torch.empty(count, narrow, wide))

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(hidden)
        for number in range(len(self.gate_up_proj)):
            tokens, place = torch.where(index == number)
            gate, up = F.linear(hidden[tokens], self.gate_up_proj[number]).chunk(2, -1)
            output = F.linear(F.silu(gate) * up, self.down_proj[number])
            total = total.index_add(0, tokens, output * weights[tokens, place, None])
        return total


class Mixture(nn.Module):
    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = Experts(config)

    def forward(self, hidden: Tensor) -> Tensor:
        tokens = hidden.flatten(0, 1)
        weights, index = self.gate(tokens).softmax(-1).topk(self.chosen)
        return self.experts(tokens, index, weights / weights.sum(-1, keepdim=True)).view_as(hidden)


class MixtureForCausalLM(llama.LlamaForCausalLM):
    config_class = MixtureConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = Mixture(config)
        self.post_init()


def register() -> None:
    unibody.AutoConfig.register("mixture", MixtureConfig, exist_ok=True)
    unibody.AutoModelForCausalLM.register(MixtureConfig, MixtureForCausalLM, exist_ok=True)


def make(folder: Any) -> None:
    """Writes a tiny one."""
    register()
    torch.manual_seed(3)
    config = MixtureConfig(
        vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    model = MixtureForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
