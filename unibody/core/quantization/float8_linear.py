"""Linear layers of float8 weights and inputs, with scales of blocks, rows or the whole, whatever a checkpoint calls them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core import role
from unibody.core.quantization.float8 import float8_as_half, float8_product
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear


def rounded_matmul(layer: Any, x: Tensor) -> Tensor:
    """The reference: the numbers that the codes of input and weight stand for, multiplied in float32.

    Scales that many rows share go to the inputs, and those of whole rows to the outputs: both are fewer than the weight's numbers.
    """
    inputs, stored, (height, width) = layer.read_inputs(x), layer.stored_tensors(), layer.block
    codes, scales = stored["weight"], layer.read_scales(stored)
    if scales.dim() == 0 or width >= layer.in_features:
        rows = scales.view(-1).repeat_interleave(height)[: layer.out_features] if scales.dim() else scales
        y = float8_product(inputs, codes) * rows
    elif height >= 32:
        columns = scales.repeat_interleave(width, 1)[:, : layer.in_features]
        y = float8_product(inputs, codes, columns, height)
    else:
        starts = range(0, layer.out_features, step := max(1, 2**18 // layer.in_features))
        y = torch.cat([F.linear(inputs, layer.read_rows(stored, start, start + step)) for start in starts], -1)
    return (y if layer.bias is None else y + layer.bias.float()).to(x.dtype)


def scaled_matmul(layer: Any, x: Tensor) -> Tensor:
    """torch's product of float8 rows, a scale for each token and each output."""
    rows = x.reshape(-1, x.shape[-1])
    (codes, scales), (weight, outputs) = layer.float8_inputs(rows), layer.float8_rows()
    tokens = scales.float().expand(len(rows), 1).contiguous()
    outputs = outputs.view(1, -1).expand(1, layer.out_features).contiguous()
    y = torch._scaled_mm(codes, weight.t(), tokens, outputs, out_dtype=x.dtype)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


@role
class Float8Linear(PackedLinear):
    """A linear layer whose weight is float8 in blocks, and whose inputs are rounded to it."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "scaled_mm",
            entry=scaled_matmul,
            device="cuda",
            capability=(8, 9),
            dtypes=("bfloat16",),
            multiples=(16, 16),
        ),
        Kernel("triton", template="float8_matmul.triton.py.j2", device="cuda", package="triton"),
        Kernel("torch", entry=rounded_matmul),
    )
    scale_name: ClassVar[str] = "weight_scale"
    block: tuple[int, int]  # rows and columns that share a scale

    def float8_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes [..., K] of inputs and their scales [..., ⌈K / k⌉], or the one that the checkpoint has."""
        raise NotImplementedError

    def float8_rows(self) -> tuple[Tensor, Tensor]:
        """The codes [N, K], and their scales where each row has one, or all the same."""
        stored = self.stored_tensors()
        return stored["weight"], self.read_scales(stored)

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return self.read_rows(stored, 0, self.out_features).to(dtype)

    def read_rows(self, stored: dict[str, Tensor], start: int, stop: int) -> Tensor:
        """Some rows of the weight, in float32."""
        values, scale = float8_as_half(stored["weight"][start:stop]), 256 * self.read_scales(stored)
        if scale.dim() == 0:
            return values.float() * scale
        rows, width = torch.arange(start, start + len(values), device=scale.device), self.block[1]
        whole = F.pad(values, (0, -self.in_features % width)) if self.in_features % width else values
        blocks = whole.unflatten(1, (-1, width)) * scale[rows // self.block[0], :, None]
        return blocks.flatten(1)[:, : self.in_features]

    def read_scales(self, stored: dict[str, Tensor]) -> Tensor:
        """The scales of the weight's blocks in float32, a number if there is one block; bytes are exponents of two."""
        scales = stored[self.scale_name]
        return (scales.view(torch.float8_e8m0fnu) if scales.dtype == torch.uint8 else scales).float()

    def read_inputs(self, x: Tensor) -> Tensor:
        """What the rounded inputs stand for, in float32."""
        codes, scales = self.float8_inputs(x)
        values, scales = float8_as_half(codes).float(), 256 * scales
        if scales.dim() == 0:  # those of a token are NaN where one of its numbers is
            return (values * scales).masked_fill_(codes.view(torch.int8) & 127 == 127, torch.nan)
        return values * scales.repeat_interleave(self.block[1], -1)[..., : x.shape[-1]]

    def why_not(self, kernel: Kernel) -> str:
        height, width = self.block
        whole = width >= self.in_features
        if kernel.name == "scaled_mm" and not (whole and (height == 1 or height >= self.out_features)):
            return f"it takes a scale for each row, and these are of blocks of {height} x {width}"
        if kernel.name == "triton" and width % 32 and not whole:
            return f"its blocks are {width} columns wide, not a multiple of 32"
        return ""
