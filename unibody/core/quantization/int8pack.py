"""Torch's own kernel for int8 weights with a scale for each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def int8pack_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], by the layer's `int8_rows()`: codes int8 [N, K] and scales [N]; sums in float32."""
    codes, scales = layer.int8_rows()
    y = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), codes, scales.to(x.dtype))
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)
