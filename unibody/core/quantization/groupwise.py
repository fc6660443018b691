"""Packed linear layers whose weight is group-wise affine codes, whatever the words that hold them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes, dequantize_groups
from unibody.core.quantization.int4pack import Int4PackLayout, int4pack_matmul
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul


class GroupwiseLinear(PackedLinear):
    """A packed layer with W = (code − zero) · scale; subclasses say how a checkpoint holds the three."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "int4pack_cuda",
            entry=int4pack_matmul,
            layout=Int4PackLayout,
            device="cuda",
            capability=(8, 0),
            dtypes=("bfloat16",),
            bits=(4,),
            group_size=(32, 64, 128, 256),
            multiples=(8, 1024),
        ),
        Kernel(
            "int4pack_cpu",
            entry=int4pack_matmul,
            layout=Int4PackLayout,
            device="cpu",
            dtypes=("bfloat16",),
            bits=(4,),
            group_size=(32, 64, 128, 256),
            multiples=(16, 1),
        ),
        Kernel(
            "int3pack_cpu",
            entry=int4pack_matmul,
            layout=Int4PackLayout,
            device="cpu",
            dtypes=("bfloat16",),
            bits=(3,),
            group_size=(64, 128, 256),
            multiples=(16, 1),
        ),
        Kernel(
            "int2pack_cpu",
            entry=int4pack_matmul,
            layout=Int4PackLayout,
            device="cpu",
            dtypes=("bfloat16",),
            bits=(2,),
            group_size=(128, 256),
            multiples=(16, 1),
        ),
        Kernel("torch", entry=dequantize_matmul),
    )

    def __init__(self, linear: nn.Linear, config: Any, bits: int, group_size: int) -> None:
        super().__init__(linear, config)
        self.bits = bits
        self.group_size = linear.in_features if group_size == -1 else group_size  # columns that share a scale

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        """The tensors of a checkpoint."""
        raise NotImplementedError

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        """The inverse of pack_codes."""
        raise NotImplementedError

    def offsets(self, scales: Tensor, zeros: Tensor) -> Tensor:
        """What the middle code stands for, per group: W = (code − middle) · scale + offset."""
        return (2 ** (self.bits - 1) - zeros) * scales

    def zeros(self, scales: Tensor, offsets: Tensor) -> Tensor:
        """The inverse of offsets."""
        return 2 ** (self.bits - 1) - offsets / scales

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return dequantize_groups(self.unpack_codes(stored), dtype)
