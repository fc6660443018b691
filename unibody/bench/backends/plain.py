"""A decoder of the Llama family written straight down in torch, with preallocated keys and values: what a library may cost at all.

It reads the checkpoints of llama, mistral (without a window) and qwen2, and has nothing that they do not need.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAMILY = ("llama", "mistral", "qwen2")


class TorchBackend:
    """Runs plain functions over the checkpoint's tensors."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings.get("device") or "cpu")

    def load(self, checkpoint: Path, model: dict[str, Any]) -> None:
        from safetensors.torch import load_file

        self.config = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
        check(self.config)
        dtype = getattr(torch, model["dtype"])
        files = sorted(Path(checkpoint).glob("*.safetensors"))
        tensors = {name: tensor for file in files for name, tensor in load_file(file, device=str(self.device)).items()}
        self.weights = {name: nn.Parameter(tensor.to(dtype)) for name, tensor in tensors.items()}
        self.head = self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"]
        frequencies = self.config["rope_parameters"]["rope_theta"] ** -(
            torch.arange(0, self.head, 2).float() / self.head
        )
        self.frequencies = frequencies.to(self.device)

    def prefill(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._run(ids, 0, self._buffers(ids))[:, -1].argmax(-1)

    def generate(self, ids: Tensor, count: int, arrived: Callable[[], None]) -> list[list[int]]:
        steps, at, tokens = [], 0, ids
        with torch.inference_mode():
            buffers = self._buffers(ids, count)
            for _ in range(count):
                chosen = self._run(tokens, at, buffers)[:, -1].argmax(-1)
                arrived()
                steps.append(chosen)
                at, tokens = at + tokens.shape[1], chosen[:, None]
        return torch.stack(steps, dim=1).tolist()

    def train_step(self, ids: Tensor) -> float:
        if not hasattr(self, "optimizer"):
            self.optimizer = torch.optim.AdamW(self.weights.values(), lr=1e-5)
        logits = self._run(ids, 0, None, every=True)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def make_linear(self, in_features: int, out_features: int, dtype: torch.dtype, quantizer: dict[str, Any]) -> Any:
        """torch's own layer; the quantizer is not looked at, so that every packed layer has something to be compared with."""
        return nn.Linear(in_features, out_features, bias=False).to(dtype)

    def _buffers(self, ids: Tensor, new: int = 0) -> list[tuple[Tensor, Tensor]]:
        shape = (len(ids), self.config["num_key_value_heads"], ids.shape[1] + new, self.head)
        kind: dict[str, Any] = {"dtype": self.weights["model.norm.weight"].dtype, "device": self.device}
        return [
            (torch.empty(shape, **kind), torch.empty(shape, **kind)) for _ in range(self.config["num_hidden_layers"])
        ]

    def _run(self, ids: Tensor, at: int, buffers: list[tuple[Tensor, Tensor]] | None, every: bool = False) -> Tensor:
        """Logits [B, S, V] of tokens that follow `at` others, or of the last token [B, 1, V]."""
        weights, eps = self.weights, self.config["rms_norm_eps"]
        hidden = F.embedding(ids, weights["model.embed_tokens.weight"])
        angles = torch.outer(torch.arange(at, at + ids.shape[1], device=self.device).float(), self.frequencies)
        angles = torch.cat((angles, angles), -1)
        rotary = angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)
        for i in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{i}"
            normed = F.rms_norm(hidden, hidden.shape[-1:], weights[f"{prefix}.input_layernorm.weight"], eps)
            hidden = hidden + self._attend(normed, f"{prefix}.self_attn", rotary, at, buffers and buffers[i])
            normed = F.rms_norm(hidden, hidden.shape[-1:], weights[f"{prefix}.post_attention_layernorm.weight"], eps)
            gate, up = (self._linear(normed, f"{prefix}.mlp.{name}_proj") for name in ("gate", "up"))
            hidden = hidden + self._linear(F.silu(gate) * up, f"{prefix}.mlp.down_proj")
        hidden = F.rms_norm(hidden if every else hidden[:, -1:], hidden.shape[-1:], weights["model.norm.weight"], eps)
        return F.linear(hidden, weights.get("lm_head.weight", weights["model.embed_tokens.weight"]))

    def _attend(self, hidden: Tensor, prefix: str, rotary: Any, at: int, buffers: Any) -> Tensor:
        query, key, value = (
            self._linear(hidden, f"{prefix}.{name}_proj").view(*hidden.shape[:2], -1, self.head).transpose(1, 2)
            for name in "qkv"
        )  # [B, heads, S, D]
        query, key = rotate(query, *rotary), rotate(key, *rotary)
        if buffers:
            end = at + hidden.shape[1]
            for buffer, new in zip(buffers, (key, value), strict=True):
                buffer[:, :, at:end] = new
            key, value = (buffer[:, :, :end] for buffer in buffers)
        causal = hidden.shape[1] > 1
        found = F.scaled_dot_product_attention(
            query, key, value, is_causal=causal, enable_gqa=query.shape[1] != key.shape[1]
        )
        return self._linear(found.transpose(1, 2).flatten(2), f"{prefix}.o_proj")

    def _linear(self, hidden: Tensor, name: str) -> Tensor:
        return F.linear(hidden, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))


def check(config: dict[str, Any]) -> None:
    """ValueError: the checkpoint needs something that these functions do not do."""
    reasons = {
        f"model_type {config.get('model_type')!r}": config.get("model_type") not in FAMILY,
        "a quantized checkpoint": config.get("quantization_config") is not None,
        "scaled rotary positions": config.get("rope_parameters", {}).get("rope_type", "default") != "default",
        "a sliding window": bool(config.get("sliding_window")) and config.get("use_sliding_window", True),
    }
    if found := [reason for reason, applies in reasons.items() if applies]:
        raise ValueError(f"backend torch cannot run {', '.join(found)}: it runs plain {', '.join(FAMILY)}")


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
