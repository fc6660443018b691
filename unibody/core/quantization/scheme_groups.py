"""Linear layers of integers in groups, two to eight bits, rounded as a group of a toolkit's configuration says."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.schemes import find_scales, input_tensors, read_scheme, round_values, to_codes


class GroupSchemeLinear(GroupwiseLinear):
    """A packed layer with W = (code − zero) · scale, and inputs rounded or plain; subclasses say how words hold the codes."""

    coded: ClassVar[tuple[str, ...]]  # the checkpoint's tensors of codes, scales and zero points
    flat: ClassVar[bool] = False  # whether shapes lack sizes of one
    variable_tensors: ClassVar[tuple[str, ...]] = ("weight_scale", "input_")
    packing: ClassVar[Packing] = Packing(word="int32", axis=0, ordered=False)  # of ColumnsLayout
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
        self.weights, self.inputs = read_scheme(scheme)
        size = -1 if self.weights.strategy in ("channel", "tensor") else self.weights.group_size or -1
        super().__init__(linear, config, self.weights.num_bits, size)
        self.symmetric = self.weights.symmetric
        self.others: dict[str, Tensor] = {}  # what a kernel's layout does not hold

    def usual_tensors(self) -> dict[str, Tensor]:
        return input_tensors(self.inputs, self.flat)

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        if layout is None:
            self.others = {name: tensor for name, tensor in tensors.items() if name not in self.coded}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        groups = weight.unflatten(1, (-1, self.group_size))
        scales, zeros = find_scales(groups.amin(-1), groups.amax(-1), self.weights)
        codes, middle = self.find_codes(groups, scales[..., None], zeros[..., None]), 2 ** (self.bits - 1)
        self.others = self.usual_tensors()
        unsigned = ((part + middle).to(torch.uint8) for part in (codes.flatten(1), zeros))
        return self.pack_codes(GroupwiseCodes(next(unsigned), scales, next(unsigned)))

    def find_codes(self, values: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        """The nearest codes, in the values' type; a zero point is added."""
        return to_codes(values / scales + zeros, self.weights)

    def round_inputs(self, x: Tensor) -> Tensor:
        return x if self.inputs is None else round_values(x, self.inputs, self.others)
