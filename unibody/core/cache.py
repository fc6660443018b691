"""Key-value caches: what attention keeps of the tokens before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class KVCache:
    """Keys and values of all past tokens, or of the last `window` - 1 in a layer with a window; grows as needed.

    A full buffer is replaced by one of twice the need, so that most steps copy nothing but the new token.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.windows = windows
        self.seen = [0] * len(windows)  # tokens so far, by layer
        self.kept = [slice(0, 0)] * len(windows)  # the part of the layer's buffers that still matters
        self.keys: list[Any] = [None] * len(windows)  # buffers [B, K, capacity, D]
        self.values: list[Any] = [None] * len(windows)

    @property
    def length(self) -> int:
        return max(self.seen)

    def mask_range(self, new: int, window: int | None) -> tuple[int, int]:
        """Position of the first key that `update` will return for `new` tokens, and the number of keys."""
        kept = self.length if window is None else min(self.length, window - 1)
        return self.length - kept, kept + new

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, kept + S, D] with those of S new tokens [B, K, S, D] at the end."""
        kept, new, window = self.kept[layer], key.shape[2], self.windows[layer]
        start, stop = kept.start, kept.stop + new
        keys, values = self.keys[layer], self.values[layer]
        if keys is None:
            keys, values = key, value
        else:
            # What a backward pass may need is never overwritten.
            if stop > keys.shape[2] or key.requires_grad or keys.requires_grad:
                start, stop = 0, stop - start
                keys, values = extend(keys[:, :, kept], stop), extend(values[:, :, kept], stop)
            keys[:, :, stop - new : stop] = key
            values[:, :, stop - new : stop] = value
        self.keys[layer], self.values[layer] = keys, values
        self.kept[layer] = slice(start if window is None else max(start, stop - window + 1), stop)
        self.seen[layer] += new
        return keys[:, :, start:stop], values[:, :, start:stop]


class StaticCache(KVCache):
    """Keys and values in buffers of a fixed length, so that every step has the same shapes; masks hide the empty end."""

    def __init__(self, windows: Sequence[int | None], max_length: int) -> None:
        super().__init__(windows)
        self.max_length = max_length

    def mask_range(self, new: int, window: int | None) -> tuple[int, int]:
        return 0, self.max_length

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The whole buffers [B, K, max_length, D] with those of S new tokens [B, K, S, D] at their positions."""
        if self.keys[layer] is None:
            shape = (*key.shape[:2], self.max_length, key.shape[3])
            self.keys[layer], self.values[layer] = key.new_zeros(shape), value.new_zeros(shape)
        positions = torch.arange(self.seen[layer], self.seen[layer] + key.shape[2], device=key.device)
        self.seen[layer] += key.shape[2]
        if self.seen[layer] > self.max_length:
            raise ValueError(f"{self.seen[layer]} tokens do not fit into a StaticCache of {self.max_length}")
        return self.keys[layer].index_copy_(2, positions, key), self.values[layer].index_copy_(2, positions, value)


def extend(kept: Tensor, need: int) -> Tensor:
    """A buffer [B, K, 2 * need, D] that starts with `kept`."""
    buffer = kept.new_empty(*kept.shape[:2], 2 * need, kept.shape[3])
    buffer[:, :, : kept.shape[2]] = kept
    return buffer
