"""Torch's own kernels for int8 weights, and rows rounded to int8."""

from __future__ import annotations

from ctypes import c_float
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Without VNNI, x86 cuts sums of two products of uint8 and int8 to 16 bits, and torch multiplies int8 as uint8, too.
CUTS_SUMS = torch.cpu._is_avx2_supported() and not torch.cpu._is_vnni_supported()


def round_rows(values: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Codes int8 [M, K] of float16 rows, and the rows' largest magnitudes float32 [M, 1], outliers left out of them."""
    magnitudes = values.abs()
    if threshold:
        magnitudes.masked_fill_(magnitudes >= threshold, 0)
    largest = magnitudes.amax(-1, keepdim=True).float()
    scales = largest.clamp_min(1e-30).reciprocal_().mul_(127)
    return (values * scales).round_().to(torch.int8), largest


def round_row(row: Tensor) -> tuple[Tensor, float]:
    """The same of one row [1, K], its largest magnitude as a number: on a CPU Python is faster at single ones than torch."""
    largest = float(row.abs().max())
    scale = c_float(127 * c_float(1 / max(largest, 1e-30)).value).value  # rounded twice to float32, as there
    return row.float().mul_(scale).round_().to(torch.int8), largest


def int8_product(left: Tensor, right: Tensor) -> Tensor:
    """int32 [M, N] of int8 [M, K] and [N, K]; cuBLAS wants more than 16 rows, and N and K in multiples of 8.

    On a CPU torch rearranges the weight for each product of more than one row; of a large one, three rows one by one are faster.
    """
    rows, right = left.shape[0], right.T
    if left.is_cuda and rows <= 16:
        return torch._int_mm(F.pad(left, (0, 0, 0, 17 - rows)), right)[:rows]
    if CUTS_SUMS and not left.is_cuda:
        moved = left.view(torch.uint8) ^ 128  # its halves, and what remains: no two products reach 2¹⁵
        product = torch._int_mm(torch.cat((moved >> 1, moved & 1, torch.full_like(moved[:1], 64))), right)
        return (product[:rows] - product[-1]).mul_(2).add_(product[rows:-1])
    if not left.is_cuda and 1 < rows <= 3 and right.numel() >= 2**21:
        return torch.cat([torch._int_mm(row, right) for row in left.split(1)])
    return torch._int_mm(left, right)


def shifted_int8_product(left: Tensor, right: Tensor, sums: Tensor | None) -> Tensor:
    """The same; with `sums`, 128 · Σ right, by a CPU's faster kernel for uint8 and int8: `left` is moved up by 128, in place."""
    if sums is None or CUTS_SUMS:
        return int8_product(left, right)
    return int8_product(left.view(torch.uint8).bitwise_xor_(128), right).sub_(sums)


class RowSumsLayout:
    """The checkpoint's tensors, and beside them int32 [N]: 128 times the sum of each row of codes."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**stored, "row_sums": stored["weight"].sum(1, dtype=torch.int32).mul_(128)}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in held.items() if name != "row_sums"}


def int8pack_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], by the layer's `int8_rows()`: codes int8 [N, K] and scales [N]; sums in float32.

    For more than a dozen rows of inputs torch's product of bfloat16 is faster; two million codes are converted at a time.
    """
    codes, scales = layer.int8_rows()
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= 12:
        codes = codes if len(rows) < 4 else aligned(codes, 16)
        y = torch._weight_int8pack_mm(aligned(rows, 32), codes, scales.to(x.dtype).contiguous())
    else:
        y, step = torch.empty(len(rows), len(codes)), max(1, 2**21 // codes.shape[1])
        for start in range(0, len(codes), step):
            y[:, start : start + step] = F.linear(rows, codes[start : start + step].to(x.dtype))
        y = y.mul_(scales).to(x.dtype)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


def aligned(tensor: Tensor, size: int) -> Tensor:
    """The same at an address that `size` divides: elsewhere torch's kernel crashes, and a tensor may lie anywhere in a file."""
    known = not torch.compiler.is_compiling()
    return tensor if known and tensor.data_ptr() % size == 0 else tensor.clone()


class MainWeightMatmul(torch.autograd.Function):
    """x Wᵀ + b of a weight [N, K] that is rounded in this pass, as in bitsandbytes; the weight's gradient passes the rounding."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        codes, largest = round_rows(weight.half())
        context.save_for_backward(x, codes, scales := largest * (1 / 127))
        context.types = weight.dtype, None if bias is None else bias.dtype
        return F.linear(x, (codes.float() * scales).to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        (x, codes, scales), (weight_type, bias_type) = context.saved_tensors, context.types
        rows = gradients[0].flatten(0, -2)
        bias = None if bias_type is None else rows.sum(0).to(bias_type)
        weight = (codes.float() * scales).to(rows.dtype)
        return gradients[0] @ weight, (rows.T @ x.flatten(0, -2)).to(weight_type), bias
