"""Linear layers of integers in groups, two to eight bits, rounded as a group of a toolkit's configuration says."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.scheme_layers import SchemeLinear
from unibody.core.quantization.schemes import QuantizationArgs


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
        size = -1 if args.strategy in ("channel", "tensor") else args.group_size or -1
        super().__init__(linear, config, scheme, bits=args.num_bits, group_size=size)
        rows = self.out_features if args.strategy == "tensor" else 1
        self.symmetric, self.block = args.symmetric, (rows, self.group_size)
        self.grid = self.out_features // rows, self.in_features // self.group_size

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        middle, scales = 2 ** (self.bits - 1), told["weight_scale"].view(self.grid)
        zeros = told["weight_zero_point"].view(self.grid)
        codes, zeros = ((part + middle).to(torch.uint8) for part in (self.find_codes(weight, told), zeros))
        self.others = self.other_tensors(told)
        return self.pack_codes(GroupwiseCodes(codes, scales, zeros))
