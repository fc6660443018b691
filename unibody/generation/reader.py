"""A model that reads texts as they grow."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Reader:
    """Reads each token once: what it has read is in the cache, if there is one.

    `mask` [B, S] is 0 where a prompt is padding. Of rows that are alike, `copies` at a time, the first text is read once.
    """

    def __init__(self, model: Any, cache: Any, mask: Tensor | None, copies: int = 1) -> None:
        self.model = model
        self.cache = cache
        self.mask = mask
        self.copies = 1 if cache is None else copies

    def logits(self, ids: Tensor, last: int = 1) -> Tensor:
        """Logits [B, last, V] in float32 of what follows each of the last tokens of the texts [B, T]."""
        copies, self.copies = self.copies, 1
        past = 0 if self.cache is None else self.cache.length
        mask = self.mask
        if mask is not None:
            mask = F.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)[::copies]
        output = self.model(
            input_ids=ids[::copies, past:],
            attention_mask=mask,
            position_ids=None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)[:, past:],
            past_key_values=self.cache,
            use_cache=self.cache is not None,
            logits_to_keep=last,
        )
        logits: Tensor = output.logits[:, -last:].float()
        if copies > 1:
            each = torch.arange(len(logits), device=ids.device).repeat_interleave(copies)
            select_rows(self.cache, each)
            logits = logits[each]
        return logits

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows [B] of the texts, each of the prompt that was there before: the mask stays."""
        if self.cache is not None:
            select_rows(self.cache, rows)

    def forget(self, length: int) -> None:
        """Forgets what it has read after the first `length` tokens."""
        if self.cache is not None and self.cache.length > length:
            crop(self.cache, length)


def select_rows(cache: Any, rows: Tensor) -> None:
    for buffers in (cache.keys, cache.values):
        buffers[:] = [None if buffer is None else buffer.index_select(0, rows) for buffer in buffers]


def crop(cache: Any, length: int) -> None:
    """Leaves the first `length` tokens in a cache, or none if a layer with a window has dropped what it saw then."""
    surplus = cache.length - length
    sliding = not hasattr(cache, "max_length")  # a static cache keeps all tokens, in their places
    short = sliding and any(
        window is not None and used - surplus < min(length, window - 1)
        for window, used in zip(cache.windows, cache.used, strict=True)
    )
    if short:
        surplus = cache.length
        cache.keys[:] = cache.values[:] = [None] * len(cache.windows)
    cache.length -= surplus
    cache.seen[:] = [seen - surplus for seen in cache.seen]
    cache.used[:] = [0 if short or not sliding else used - surplus for used in cache.used]
