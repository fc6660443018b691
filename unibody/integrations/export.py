"""A decoder's step with its cache as tensors, which torch.export can make a program of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unibody.core.cache import KVCache


class DecodingStep(nn.Module):
    """Logits [B, S, V] of new tokens, and the keys and values of each layer with theirs added.

    Takes `input_ids` [B, S], `attention_mask` [B, past + S], and for each layer keys and values [B, K, past, D], of a layer with a
    window the last window - 1 of them: as many must be there. Without a program, `model.generate` is quicker: it does not copy the
    cache at every step.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        cache, past = KVCache(self.model.config.attention_windows), attention_mask.shape[1] - input_ids.shape[1]
        cache.keys, cache.values = list(keys), list(values)
        cache.length, cache.seen = past, [past] * len(keys)
        cache.used = [key.shape[2] for key in keys]
        logits = self.model(input_ids, attention_mask, past_key_values=cache, use_cache=True).logits
        starts = [0 if w is None else used - (w - 1) for w, used in zip(cache.windows, cache.used, strict=True)]
        held = zip(starts, cache.used, cache.keys, cache.values, strict=True)
        pairs = [(key[:, :, start:stop], value[:, :, start:stop]) for start, stop, key, value in held]
        return logits, [key for key, _ in pairs], [value for _, value in pairs]
