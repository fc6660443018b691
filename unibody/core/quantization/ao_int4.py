"""torchao's layers of packed int4: W = (code − 8) · scale + shift, two codes in a byte or in the tiles of CUDA's product."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.ao_header import int4_header
from unibody.core.quantization.ao_types import member, read_scheme
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.half_quadratic import solve_groups


class Int4ShiftLinear(GroupwiseLinear):
    """A layer of nibbles with scales and shifts, in the place of zero points, for groups of columns.

    Tiled, rows are filled up to 8 and columns to 1024, and scales and shifts are bfloat16.
    """

    def __init__(self, linear: nn.Linear, config: Any, quant_type: dict[str, Any]) -> None:
        scheme = read_scheme(quant_type)
        super().__init__(linear, config, scheme.bits, scheme.group_size)
        self.tiled = scheme.kind == "int4_tiles"
        self.solved = member(quant_type["_data"]["int4_choose_qparams_algorithm"]) == "HQQ"
        least = 5e-5 if self.solved else torch.finfo(torch.bfloat16).tiny
        self.filling = 0.0, least, 8 * least  # a code, a scale and a shift, which make 0

    def fits(self) -> bool:
        return self.in_features % self.group_size == 0 and (not self.tiled or 1024 % self.group_size == 0)

    def empty_tensors(self) -> dict[str, Tensor]:
        codes = torch.zeros(self.out_features, self.in_features, dtype=torch.uint8)
        scales = torch.zeros(self.out_features, self.in_features // self.group_size)
        return self.pack_codes(GroupwiseCodes(codes, scales, scales))

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """As torchao does: tiles all in bfloat16, the others in float32 but for scales and shifts, in the weight's type."""
        if self.solved:
            parts = solve_groups(weight.float().reshape(-1, self.group_size), 4, 1, narrow=-1)
            codes, scales, zeros = (part.view(len(weight), -1) for part in parts)
            return self.pack_codes(GroupwiseCodes(codes, scales, (8 - zeros) * scales))
        groups = (weight.bfloat16() if self.tiled else weight.float()).unflatten(1, (-1, self.group_size))
        low, high = groups.amin(-1), groups.amax(-1)
        if self.tiled:
            scales = ((high - low) / 15).clamp(min=torch.finfo(torch.bfloat16).tiny)
            lowest = low + scales * 8 - scales * 8  # rounded twice
        else:
            scales, lowest = (high - low).clamp(min=1e-6) / 15, low
        codes = ((groups - lowest[..., None]) / scales[..., None]).round().clamp(0, 15).flatten(1).to(torch.uint8)
        return self.pack_codes(GroupwiseCodes(codes, scales.to(weight.dtype), (low + scales * 8).to(weight.dtype)))

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes, scales, shifts, _ = weight
        if self.tiled:
            rows, columns = -self.out_features % 8, -self.in_features % 1024
            groups = columns // self.group_size
            codes, scales, shifts = (
                F.pad(part, (0, more, 0, rows), value=value)
                for part, more, value in zip(
                    (codes, scales, shifts), (columns, groups, groups), self.filling, strict=True
                )
            )
            packed = torch.stack((scales.T, shifts.T), -1).bfloat16()
            return {"_weight_qdata": pack_tensor_cores(codes), "_weight_scale_and_zero": packed}
        signed = codes ^ 8
        return {
            "_weight_qdata": (signed[:, ::2] | signed[:, 1::2] << 4).view(torch.int8),
            "_weight_scale": scales.T.contiguous(),
            "_weight_zero_point": shifts.T.contiguous(),
        }

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        packed, rows = stored["_weight_qdata"], self.out_features
        if self.tiled:
            codes, groups = unpack_tensor_cores(packed), self.in_features // self.group_size
            scales, shifts = stored["_weight_scale_and_zero"].permute(2, 1, 0)
            self.filling = float(codes[-1, -1]), float(scales[-1, -1]), float(shifts[-1, -1])
            return GroupwiseCodes(codes[:rows, : self.in_features], scales[:rows, :groups], shifts[:rows, :groups])
        pairs = packed.view(torch.uint8)
        codes = torch.stack((pairs & 15, pairs >> 4), -1).flatten(1) ^ 8
        return GroupwiseCodes(codes, stored["_weight_scale"].T, stored["_weight_zero_point"].T)

    def offsets(self, scales: Tensor, zeros: Tensor) -> Tensor:
        return zeros

    def zeros(self, scales: Tensor, offsets: Tensor) -> Tensor:
        return offsets

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes, scales, shifts, _ = self.unpack_codes(stored)
        wide = torch.promote_types(torch.float32, dtype)
        groups = (codes.to(wide) - 8).unflatten(1, (-1, self.group_size))
        return (groups * scales.to(wide)[..., None] + shifts.to(wide)[..., None]).flatten(1).to(dtype)

    def header(self, dtype: torch.dtype) -> str:
        """What torchao writes about the weight into a file's header."""
        return int4_header(self.tiled, [1, self.group_size], [self.out_features, self.in_features])


def pack_tensor_cores(codes: Tensor) -> Tensor:
    """int32 [N / 8, K / 128, 32, 4] of codes uint8 [N, K]: what each of 32 threads multiplies (PTX ISA, mma.m16n8k16, matrix B).

    A word holds, of one row, columns c, c + 8, c + 16 and c + 24 of 32, then those to the right of each, the first lowest.
    """
    tiles = codes.view(len(codes) // 8, 8, -1, 4, 4, 4, 2).permute(0, 2, 1, 5, 3, 6, 4).flatten(-2)
    return (tiles[..., ::2] | tiles[..., 1::2] << 4).contiguous().view(torch.int32).flatten(2, 3).squeeze(-1)


def unpack_tensor_cores(packed: Tensor) -> Tensor:
    """The inverse of pack_tensor_cores."""
    pairs = packed[..., None].view(torch.uint8)
    tiles = torch.stack((pairs & 15, pairs >> 4), -1).view(*packed.shape[:2], 8, 4, 4, 2, 4)
    return tiles.permute(0, 2, 1, 4, 6, 3, 5).reshape(8 * len(packed), -1)
