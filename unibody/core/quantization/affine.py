"""Group-wise affine codes: W = (code − zero) · scale, one scale and zero for some columns of each row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GroupwiseCodes(NamedTuple):
    """A weight [N, K] as small integers; column k has the scale and zero point of the group groups[k], or k // (K / G)."""

    codes: Tensor  # uint8 [N, K]
    scales: Tensor  # [N, G], not negative in most formats
    zeros: Tensor  # [N, G], in units of the codes
    groups: Tensor | None = None  # int32 [K]; None: consecutive columns


def dequantize_groups(weight: GroupwiseCodes, dtype: torch.dtype) -> Tensor:
    """The weight [N, K], computed in float32 where the type is smaller."""
    codes, scales, zeros, groups = weight
    wide = torch.promote_types(torch.float32, dtype)
    if groups is None:
        size = codes.shape[1] // scales.shape[1]
        groups = torch.arange(codes.shape[1], device=codes.device) // size
    scales, zeros = (x.to(wide).index_select(1, groups) for x in (scales, zeros))
    return ((codes.to(wide) - zeros) * scales).to(dtype)


def round_groups(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> GroupwiseCodes:
    """The nearest codes to a weight [N, K], each group scaled to its own range: round-to-nearest.

    Symmetric: the middle code is 0, and the larger end of the range fits; but a group without negative values has the scale
    of its whole range, as in the field's GPTQ. Otherwise both ends fit, and 0 is a code.
    """
    groups = weight.float().unflatten(1, (-1, group_size))  # [N, G, g]
    top = 2**bits - 1
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)  # [N, G]
    if symmetric:
        high = torch.maximum(-low, high)
        low = torch.where(low < 0, -high, low)
    scales = torch.where(high > low, high - low, 2.0) / top
    zeros = torch.full_like(scales, (top + 1) // 2) if symmetric else (-low / scales).round()
    codes = (groups / scales[..., None]).round().add(zeros[..., None]).clamp(0, top)
    return GroupwiseCodes(codes.flatten(1).to(torch.uint8), scales, zeros.to(torch.uint8))


def nearest_codes(values: Tensor, scales: Tensor, zeros: Tensor | int, bits: int) -> Tensor:
    """Signed codes in the values' type; of near ties, those that products with the scale's inverse give."""
    return ((values * (1 / scales)).round() + zeros).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
