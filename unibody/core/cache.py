"""Key-value caches: what attention keeps of the tokens before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor


class KVCache:
    """Keys and values of all past tokens, or of the last `window` - 1 in a layer with a window; grows as needed.

    A full buffer is replaced by one of twice the need, so that most steps copy nothing but the new token.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.windows = windows
        self.length = 0  # tokens so far
        self.seen = [0] * len(windows)  # the same, by layer
        self.used = [0] * len(windows)  # places of the layer's buffers that are taken
        self.keys: list[Any] = [None] * len(windows)  # buffers [B, K, places, D]
        self.values: list[Any] = [None] * len(windows)

    def mask_range(self, new: int, window: int | None) -> tuple[int, int]:
        """Position of the first key that `update` will return for `new` tokens, and the number of keys."""
        kept = self.length if window is None else min(self.length, window - 1)
        return self.length - kept, kept + new

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, kept + S, D]: those kept, then those of the S new tokens [B, K, S, D]."""
        new, seen, window = key.shape[2], self.seen[layer], self.windows[layer]
        kept = seen if window is None else min(seen, window - 1)
        start, stop = self.used[layer] - kept, self.used[layer] + new
        keys, values = self.keys[layer], self.values[layer]
        if keys is None:
            keys, values = key, value
        else:
            # A backward pass may still need the old buffer, and one that was made in inference mode is read-only outside.
            fixed = key.requires_grad or keys.requires_grad or keys.is_inference() > key.is_inference()
            if stop > keys.shape[2] or fixed:
                room = (0, 0, 0, kept + 2 * new)
                keys, values = (F.pad(buffer[:, :, start : start + kept], room) for buffer in (keys, values))
                start, stop = 0, kept + new
            keys[:, :, stop - new : stop] = key
            values[:, :, stop - new : stop] = value
        self.keys[layer], self.values[layer] = keys, values
        self.length = self.seen[layer] = seen + new
        self.used[layer] = stop
        return keys[:, :, start:stop], values[:, :, start:stop]


class StaticCache(KVCache):
    """Keys and values in buffers of one length, so that every step has the same shapes; masks hide the empty places."""

    def __init__(self, windows: Sequence[int | None], max_length: int) -> None:
        super().__init__(windows)
        self.max_length = max_length

    def mask_range(self, new: int, window: int | None) -> tuple[int, int]:
        return 0, self.max_length

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The buffers [B, K, max_length, D], with keys and values of the S new tokens [B, K, S, D] in their places."""
        start, self.length = self.seen[layer], self.seen[layer] + key.shape[2]
        if self.length > self.max_length:
            raise ValueError(f"{self.length} tokens do not fit into a StaticCache of {self.max_length}")
        if self.keys[layer] is None:
            room = (0, 0, 0, self.max_length - self.length)
            self.keys[layer], self.values[layer] = F.pad(key, room), F.pad(value, room)
        self.keys[layer][:, :, start : self.length] = key
        self.values[layer][:, :, start : self.length] = value
        self.seen[layer] = self.length
        return self.keys[layer], self.values[layer]
