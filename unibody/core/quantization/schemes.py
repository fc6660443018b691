"""How the toolkits of the field say that weights or inputs are rounded, and the arithmetic of it; names and defaults are theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import nearest_codes
from unibody.core.quantization.config import require_choice
from unibody.core.quantization.float4 import round_to_float4, round_to_float6
from unibody.core.quantization.float8 import round_to_float8


@dataclass
class QuantizationArgs:
    """How weights or inputs are rounded; without a strategy, what `group_size` and `block_structure` say."""

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    group_size: int | None = None  # columns that share a scale; -1: all
    strategy: str | None = None
    block_structure: list[int] | None = None
    dynamic: bool | str = False  # scales of inputs as they come; "local": of groups, within a given range
    actorder: str | None = None
    scale_dtype: Any = None
    zp_dtype: Any = None
    element: str | None = None  # bits of exponent and mantissa, where they are not the usual ones
    mode: str | None = None  # "floor" or "ceil": how exponents of two follow from the largest; None: the nearest
    inverse: bool | None = None  # whether integers are products with the inverse of a scale, which decides near ties
    observer: str | None = None
    observer_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice(self, "type", ("int", "float"))
        require_choice(self, "num_bits", range(2, 9) if self.type == "int" else (4, 6, 8))
        require_choice(self, "dynamic", (True, False, "local"))
        require_choice(self, "actorder", (None, "group", "weight", "static", "dynamic"))
        grouped = "channel" if self.group_size == -1 else "group" if self.group_size else "tensor"
        self.strategy = self.strategy or ("block" if self.block_structure else grouped)
        require_choice(self, "strategy", ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head"))
        if self.strategy in ("group", "tensor_group") and not (self.group_size and self.group_size > 0):
            raise ValueError(
                f"QuantizationArgs: strategy {self.strategy!r} needs a group_size, not {self.group_size!r}"
            )

    @property
    def split(self) -> str:
        """The bits of exponent and mantissa of floating-point codes."""
        return self.element or {4: "e2m1", 6: "e2m3", 8: "e4m3"}[self.num_bits]

    @property
    def largest(self) -> float:
        """The code of the largest magnitude; halfway between the ends for integers, which are not symmetric."""
        if self.type == "int":
            return (2**self.num_bits - 1) / 2
        return {"e2m1": 6.0, "e2m3": 7.5, "e3m2": 28.0, "e4m3": 448.0, "e5m2": 57344.0}[self.split]

    def to_dict(self) -> dict[str, Any]:
        """What is not left open, without the type of zero points, which follows from the others."""
        left_open = {key for key, value in vars(self).items() if value in (None, {}) and key != "group_size"}
        return {key: value for key, value in vars(self).items() if key not in left_open | {"zp_dtype"}}


def find_scales(low: Tensor, high: Tensor, args: QuantizationArgs, overall: Any = None) -> tuple[Tensor, Tensor]:
    """Scales and zero points for values between `low` and `high`, in their type; `overall` is what FP4's scales are stored times."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    largest = torch.maximum(-low, high)
    if args.scale_dtype == "torch.uint8":  # powers of two: from 1.75 · 2^n on (more bits: nearer to 2), as for 2^(n+1)
        halves = {"e2m3": 0x80000, "e3m2": 0x100000, "e4m3": 0x80000, "e5m2": 0x100000}
        half = halves.get(args.split if args.num_bits == 6 else args.element or "", 0x200000)
        half = {"floor": 0, "ceil": 0x7FFFFF}.get(args.mode or "", half)
        exponents = (largest.float().view(torch.int32) + half >> 23) - {"e3m2": 4, "e4m3": 8, "e5m2": 15}.get(
            args.split, 2
        )
        return torch.exp2(exponents.clamp(0, 254).float() - 127).to(low.dtype), torch.zeros_like(low)
    if args.symmetric:
        scales = largest / args.largest
        if args.scale_dtype == "torch.float8_e4m3fn":
            scales = round_to_float8(scales * overall)
            return torch.where(scales.float() == 0, 0.125, scales.float()).to(low.dtype), torch.zeros_like(low)
        return torch.where(scales == 0, torch.finfo(scales.dtype).eps, scales), torch.zeros_like(low)
    lowest, scales = -(2 ** (args.num_bits - 1)), (high - low) / (2 * args.largest)
    zeros = (lowest - low / scales).round().clamp(lowest, -lowest - 1)
    empty = scales == 0
    return torch.where(empty, torch.finfo(scales.dtype).eps, scales), torch.where(empty, 0, zeros)


def to_codes(values: Tensor, args: QuantizationArgs) -> Tensor:
    """The nearest codes to values in units of the scale, zero point added; in the values' type, for float4 the numbers."""
    if args.type == "int":
        return values.round().clamp(-(2 ** (args.num_bits - 1)), 2 ** (args.num_bits - 1) - 1)
    if args.split == "e5m2":
        return values.clamp(-args.largest, args.largest).to(torch.float8_e5m2).to(values.dtype)
    if args.num_bits == 8:
        return round_to_float8(values).to(values.dtype)
    return round_to_float6(values, args.split) if args.num_bits == 6 else round_to_float4(values)


def round_values(x: Tensor, args: QuantizationArgs, stored: dict[str, Tensor], prefix: str) -> Tensor:
    """What x [..., K] is after rounding, in its type; static scales are those stored."""
    values, overall = x, stored.get(f"{prefix}global_scale")
    if args.strategy in ("group", "tensor_group"):
        values = x.unflatten(-1, (-1, args.group_size or 0))
    if args.dynamic:
        whole = args.strategy == "tensor"
        low, high = (values.amin(), values.amax()) if whole else (values.amin(-1, True), values.amax(-1, True))
        scales, zeros = find_scales(low, high, args, overall)
        scales = scales if overall is None else scales / overall.float()
    else:
        scales = stored[f"{prefix}scale"].to(x.dtype)
        zeros = stored.get(f"{prefix}zero_point", torch.zeros(1, device=x.device))
        zeros = zeros.to(x.dtype) - (2 ** (args.num_bits - 1) if args.zp_dtype == "torch.uint8" else 0)  # codes from 0
    if args.inverse:
        codes = nearest_codes(values, scales, zeros, args.num_bits)
    else:
        codes = to_codes(values / scales + zeros, args)
    return ((codes - zeros) * scales).to(x.dtype).view(x.shape)


def read_scheme(scheme: dict[str, Any]) -> list[Any]:
    """How weights, inputs and outputs of a group are rounded; None: not at all."""
    parts = (scheme.get(name) for name in ("weights", "input_activations", "output_activations"))
    return [None if part is None else QuantizationArgs(**part) for part in parts]


def static_tensors(args: QuantizationArgs | None, prefix: str, flat: bool = False) -> dict[str, Tensor]:
    """What a checkpoint holds of a layer's inputs or outputs, where nothing is calibrated.

    `flat`: scales are numbers, and integers have zero points even where they are 0.
    """
    if args is None or args.dynamic is True:
        return {}
    if args.strategy == "tensor_group":
        return {f"{prefix}global_scale": torch.ones(1)}
    unsigned = args.zp_dtype == "torch.uint8"
    kind = torch.int32 if flat and args.num_bits < 8 else torch.uint8 if unsigned else torch.int8
    zero = torch.full((1,), 2 ** (args.num_bits - 1) if unsigned else 0, dtype=kind)
    found = {f"{prefix}scale": torch.ones(1), f"{prefix}zero_point": zero}
    if args.symmetric and not (flat and args.type == "int"):
        del found[f"{prefix}zero_point"]
    return {name: tensor.view(()) if flat else tensor for name, tensor in found.items()}


def block_shape(args: QuantizationArgs, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a weight that share a scale."""
    if args.strategy == "block":
        height, width = args.block_structure or (rows, columns)
        return height, width
    return {
        "tensor": (rows, columns),
        "channel": (1, columns),
    }.get(args.strategy or "", (1, args.group_size or columns))


def in_blocks(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """[N / n, n, K / k, k] of a weight [N, K]."""
    return weight.unflatten(1, (-1, block[1])).unflatten(0, (-1, block[0]))
