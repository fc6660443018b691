"""How torchao rounds to int8 and float8, with scales in float32, and multiplies what is int8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import nearest_codes
from unibody.core.quantization.float8 import widen_float8
from unibody.core.quantization.int8 import int8_product


def symmetric_scales(largest: Tensor, bits: int) -> Tensor:
    """float32 scales under which the largest magnitude is halfway between the two largest codes."""
    return (largest / ((2**bits - 1) / 2)).float().clamp_(min=torch.finfo(torch.float32).eps)


def symmetric_codes(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Signed codes in float32; as nearest_codes, with fewer calls, which are most of the time of a single row."""
    return (values * scales.reciprocal()).round_().clamp_(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def asymmetric_codes(values: Tensor, bits: int, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Signed codes of numbers [..., K], and scales and zero points [..., 1] of rows, or [1] of all; in float32."""
    low, high = values.amin(-1, keepdim=True).clamp(max=0), values.amax(-1, keepdim=True).clamp(min=0)
    low, high = (low.amin().view(1), high.amax().view(1)) if whole else (low, high)
    scales = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).eps)
    lowest = -(2 ** (bits - 1))
    zeros = (lowest - (low / scales).round()).clamp(lowest, -lowest - 1)
    return nearest_codes(values, scales.float(), zeros, bits), scales.float(), zeros


def scaled_float8(values: Tensor, largest: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes of values, and the float32 scales that bring these magnitudes to the largest code."""
    scales = (largest / (top := torch.finfo(dtype).max)).float()
    return (values.float() / torch.where(scales > 0, scales, 1)).clamp_(-top, top).to(dtype), scales


def widen_codes(codes: Tensor) -> Tensor:
    """Codes in a type that converts faster than float8_e4m3fn does, or in their own."""
    return widen_float8(codes) if codes.dtype == torch.float8_e4m3fn else codes


def int8_matmul(layer: Any, x: Tensor) -> Tensor:
    """Codes of tokens and weight, multiplied as integers; scales as torchao puts them: the token's first, rounded to x's type."""
    rows, (weight, scales) = x.reshape(-1, x.shape[-1]), layer.int8_rows()
    if layer.scheme.inputs == "symmetric":
        codes, steps = layer.int8_inputs(rows)
        y = (int8_product(codes, weight) * steps[:, None]).to(x.dtype)
    else:
        codes, steps, zeros = asymmetric_codes(rows, layer.bits, layer.scheme.whole_inputs)
        y = (int8_product(codes.to(torch.int8), weight) * steps).to(x.dtype)
        y = y.sub_((steps * zeros * weight.sum(1, dtype=torch.int32)).to(x.dtype))
    y = y.mul_(scales.to(x.dtype))
    y = y if layer.bias is None else y.add_(layer.bias.to(y.dtype))
    return y.view(*x.shape[:-1], -1)
