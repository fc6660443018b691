"""A decoder with its cache as tensors, which torch.export can make a program of: one program for a prompt and for all steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unibody.core.cache import KVCache


class DecodingStep(nn.Module):
    """Logits [B, S, V] of new tokens, and the keys and values of all tokens so far.

    Takes `input_ids` [B, S], for each layer the keys and values [B, K, past, D] of the tokens before, and the `attention_mask`
    [B, past + S] if there is padding. `start` gives what there is before the first token. Layers with a window keep all keys too,
    of which masks hide the old ones, so that all layers have one size. Without a program, `model.generate` is quicker: it does not
    copy the cache at every step.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def start(self, rows: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values [rows, K, 0, D] of no tokens, for each layer."""
        config = self.model.config
        shape = (rows, config.num_key_value_heads, 0, config.head_dim)
        empty = torch.zeros(shape, dtype=self.model.dtype, device=self.model.device)
        keys, values = ([empty.clone() for _ in range(config.num_hidden_layers)] for _ in range(2))
        return keys, values

    def forward(
        self, input_ids: Tensor, keys: list[Tensor], values: list[Tensor], attention_mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        cache = TensorCache(keys, values)
        logits = self.model(input_ids, attention_mask, past_key_values=cache, use_cache=True).logits
        return logits, cache.keys, cache.values


class TensorCache(KVCache):
    """Keys and values [B, K, T, D] of all tokens, in tensors that each token replaces."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super().__init__([None] * len(keys))
        self.keys, self.values = list(keys), list(values)
        self.length = keys[0].shape[2]

    def mask_range(self, new: int, window: int | None) -> tuple[int, int]:
        return 0, self.length + new

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys[layer] = torch.cat([self.keys[layer], key], dim=2)
        self.values[layer] = torch.cat([self.values[layer], value], dim=2)
        return self.keys[layer], self.values[layer]
