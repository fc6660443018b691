"""Linear layers of integers in groups, two to eight bits, rounded as a group of a toolkit's configuration says."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core import role
from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.scheme_layers import SchemeLinear
from unibody.core.quantization.schemes import QuantizationArgs, block_shape


@role
class GroupSchemeLinear(SchemeLinear, GroupwiseLinear):
    """A packed layer with W = (code − zero) · scale, and inputs rounded or plain; subclasses say how words hold the codes."""

    packing: ClassVar[Packing] = Packing(word="int32")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton_groups",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            multiples=(32, 32),
        ),
        *GroupwiseLinear.kernels,
    )

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        args = QuantizationArgs(**scheme["weights"])
        height, width = block_shape(args, linear.out_features, linear.in_features)
        super().__init__(linear, config, scheme, bits=args.num_bits, group_size=width)
        self.symmetric, self.height = args.symmetric, height  # rows that share scales

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        middle, scales = 2 ** (self.bits - 1), told["weight_scale"].view(self.grid)
        zeros = told["weight_zero_point"].view(self.grid)
        codes, zeros = ((part + middle).to(torch.uint8) for part in (self.find_codes(weight, told), zeros))
        self.others = self.other_tensors(told)
        return self.pack_codes(GroupwiseCodes(codes, self.for_rows(scales), self.for_rows(zeros)))

    def for_rows(self, groups: Tensor) -> Tensor:
        """[N, G] of scales or zero points that some rows share; a checkpoint has the first of these."""
        return groups.view(self.grid).repeat_interleave(self.height, 0) if self.height > 1 else groups
