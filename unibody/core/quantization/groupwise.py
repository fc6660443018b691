"""Packed linear layers whose weight is group-wise affine codes, whatever the words that hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core import role
from unibody.core.quantization.affine import GroupwiseCodes, dequantize_groups
from unibody.core.quantization.int4pack import Int4PackLayout, int4pack_matmul
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul


@role
class GroupwiseLinear(PackedLinear):
    """A packed layer with W = (code − zero) · scale; subclasses say how a checkpoint holds the three."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        *(
            Kernel(
                name,
                entry=int4pack_matmul,
                layout=Int4PackLayout,
                device="cuda" if capability > (0, 0) else "cpu",
                capability=capability,
                dtypes=("bfloat16",),
                bits=(bits,),
                group_size=sizes,
                multiples=multiples,
            )
            for name, capability, bits, sizes, multiples in (
                ("int4pack_cuda", (8, 0), 4, (32, 64, 128, 256), (8, 1024)),
                ("int4pack_cpu", (0, 0), 4, (32, 64, 128, 256), (16, 1)),
                # Beside smaller groups of fewer bits, those of the layout would be more than a tenth.
                ("int3pack_cpu", (0, 0), 3, (64, 128, 256), (16, 1)),
                ("int2pack_cpu", (0, 0), 2, (128, 256), (16, 1)),
            )
        ),
        Kernel("torch", entry=dequantize_matmul),
    )

    pack_codes: Callable[[GroupwiseCodes], dict[str, Tensor]]  # the tensors of a checkpoint
    unpack_codes: Callable[[dict[str, Tensor]], GroupwiseCodes]  # the inverse

    def __init__(self, linear: nn.Linear, config: Any, bits: int, group_size: int) -> None:
        super().__init__(linear, config)
        self.bits = bits
        self.group_size = linear.in_features if group_size == -1 else group_size  # columns that share a scale

    def offsets(self, scales: Tensor, zeros: Tensor) -> Tensor:
        """What the middle code stands for, per group: W = (code − middle) · scale + offset."""
        return (2 ** (self.bits - 1) - zeros) * scales

    def zeros(self, scales: Tensor, offsets: Tensor) -> Tensor:
        """The inverse of offsets."""
        return 2 ** (self.bits - 1) - offsets / scales

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return dequantize_groups(self.unpack_codes(stored), dtype)
