"""Attention between query and key positions, and the mask that says who sees whom."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Attention output [B, N, S, D] by torch's fused kernels; arguments as in eager_attention."""
    causal = mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=True
    )


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """softmax(scale · q kᵀ) v, the reference: query [B, N, S, D], key and value [B, K, T, D], N a multiple of K.

    The mask [B or 1, 1, S, T] is True where a query sees a key; None is the causal mask of S queries that start where
    the keys start, or one query that sees all keys. The softmax is computed in float32.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)  # [B, N, T, D]
    scores = query @ key.transpose(2, 3) * scale  # [B, N, S, T]
    if mask is None and query.shape[2] > 1:
        mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite: a row that sees nothing is no NaN
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, dropout) @ value  # [B, N, S, D]


def causal_mask(hidden: Tensor, cache: Any, window: int | None, attention_mask: Tensor | None) -> Tensor | None:
    """Which keys the new tokens `hidden` [B, S, H] see [B or 1, 1, S, T]: not later, in the window, not padding.

    None if plain causal attention says the same. `attention_mask` [B, past + S] is 0 where a token is padding.
    """
    length, device = hidden.shape[1], hidden.device
    past = 0 if cache is None else cache.length
    first, total = (0, length) if cache is None else cache.mask_range(length, window)
    if attention_mask is not None and not torch.compiler.is_compiling() and attention_mask.all():
        attention_mask = None
    if attention_mask is None and (window is None or length <= window):
        if past == 0 < length - 1 or length == 1 and first + total == past + 1:
            return None
    keys = torch.arange(first, first + total, device=device)  # [T]
    queries = torch.arange(past, past + length, device=device)[:, None]  # [S, 1]
    mask = keys <= queries  # [S, T]
    if window is not None:
        mask &= keys > queries - window
    mask = mask[None, None]  # [1, 1, S, T]
    if attention_mask is not None:
        padding = F.pad(attention_mask[:, first:].bool(), (0, max(0, first + total - attention_mask.shape[1])))
        mask = mask & padding[:, None, None, :total]  # [B, 1, S, T]
    return mask


ATTENTION = {"sdpa": sdpa_attention, "eager": eager_attention}
