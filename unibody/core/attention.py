"""Attention between query and key positions, and the mask that says who sees whom."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, causal: bool = True
) -> Tensor:
    """The same as eager_attention, by torch's fused kernels."""
    if mask is not None or q.shape[2] == 1:  # asked, not computed: a size may be a symbol, and `causal` must be a bool
        causal = False
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale, enable_gqa=True)


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, causal: bool = True
) -> Tensor:
    """softmax(scale · q kᵀ) v [B, N, S, D] of queries [B, N, S, D], keys and values [B, K, T, D]; softmax in float32.

    The mask [B or 1, 1, S or 1, T] is True where a query sees a key. Without one, all see all keys, or if `causal`, of
    several queries the first sees the first key, the next one key more, and so on.
    """
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))  # [B, K, T, D] -> [B, N, T, D]
    scores = q @ k.transpose(2, 3) * scale  # [B, N, S, T]
    if causal and mask is None and q.shape[2] > 1:
        mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite: what sees nothing must not be NaN
    return F.dropout(scores.softmax(-1, torch.float32).to(v.dtype), dropout) @ v


ATTENTION: dict[str, Any] = {"sdpa": sdpa_attention, "eager": eager_attention}


def causal_mask(hidden: Tensor, cache: Any, window: int | None, attention_mask: Tensor | None) -> Tensor | None:
    """Who sees whom [B or 1, 1, S, T] for new tokens [B, S, H]: keys not later, within the window, not padding.

    None where attention says the same without a mask. `attention_mask` [B, past + S] is 0 where a token is padding.
    """
    new = hidden.shape[1]
    past, (first, total) = (0, (0, new)) if cache is None else (cache.length, cache.mask_range(new, window))
    padded = attention_mask is not None and (torch.compiler.is_compiling() or not bool(attention_mask.all()))
    within = window is None or (not torch.compiler.is_exporting() and total <= window)  # a program is for any length
    if not padded and within and (past == 0 or new == 1) and first + total == past + new:
        return None
    keys = torch.arange(first, first + total, device=hidden.device)  # [T]
    queries = torch.arange(past, past + new, device=hidden.device)[:, None]  # [S, 1]
    mask = ((keys <= queries) & (keys > queries - (window or past + new)))[None, None]  # [1, 1, S, T]
    if attention_mask is None or not padded:
        return mask
    if attention_mask.shape[1] != past + new:
        raise ValueError(f"attention_mask is for {attention_mask.shape[1]} tokens, expected {past} cached + {new} new")
    return mask & F.pad(attention_mask.bool(), (0, first + total - past - new))[:, None, None, first:]  # [B, 1, S, T]


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """Whom everybody sees [B, 1, 1, S]: tokens that are not padding, for which `attention_mask` [B, S] is 0; None: all."""
    if attention_mask is None or (not torch.compiler.is_compiling() and bool(attention_mask.all())):
        return None
    return attention_mask.bool()[:, None, None]
