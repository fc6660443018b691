"""torch's own kernels for 4-bit groups, on the CPU and on CUDA, and their layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes


class Int4PackLayout:
    """Nibbles as torch's kernel for the device wants them, and bfloat16 groups: W = (code − 8) · scale + offset.

    What scales and zero points lose in bfloat16 is kept beside them, so that the checkpoint's come back to the bit.
    """

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Any]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        layer.group_types = scales.dtype, zeros.dtype
        scale, offset = scales.bfloat16(), layer.offsets(scales.float(), zeros.float()).bfloat16()
        near = near_groups(layer, scale, offset)
        return {
            "int4": pack_tiles(codes) if codes.is_cuda else pack_blocks(codes),
            "groups": torch.stack((scale.T, offset.T), -1).contiguous(),  # [G, N, 2]
            "scales_rest": difference(scales, near[0]),
            "zeros_rest": difference(zeros, near[1]),
        }

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        near = near_groups(layer, held["groups"][..., 0].T, held["groups"][..., 1].T)
        scales, zeros = add_difference(near[0], held["scales_rest"]), add_difference(near[1], held["zeros_rest"])
        codes = unpack_tiles(held["int4"]) if held["int4"].dim() == 4 else unpack_blocks(held["int4"])
        return layer.pack_codes(GroupwiseCodes(codes, scales, zeros))


def int4pack_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], rounded as the format says; sums in float32."""
    rows, tiled = layer.round_inputs(x).reshape(-1, x.shape[-1]), layer.int4.dim() == 4
    product = torch.ops.aten._weight_int4pack_mm if tiled else torch.ops.aten._weight_int4pack_mm_for_cpu
    y = product(rows, layer.int4, layer.group_size, layer.groups)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


def near_groups(layer: Any, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zero points as far as bfloat16 scales and offsets tell them."""
    scale_type, zero_type = layer.group_types
    zeros = layer.zeros(scale.float(), offset.float())
    zeros = zeros if zero_type.is_floating_point else zeros.nan_to_num(0, 0, 0).round().clamp(-128, 127)
    return scale.to(scale_type), zeros.to(zero_type)


def difference(exact: Tensor, near: Tensor) -> Tensor | None:
    """What takes the bits of `near` to those of `exact`, in one byte each if that is enough; None if they are the same."""
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32}[exact.element_size()]
    rest = exact.contiguous().view(bits) - near.contiguous().view(bits)
    if not rest.any():
        return None
    return rest.to(torch.int8) if torch.equal(rest, rest.to(torch.int8).to(bits)) else rest


def add_difference(near: Tensor, rest: Tensor | None) -> Tensor:
    if rest is None:
        return near
    bits = near.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32}[near.element_size()])
    return (bits + rest.to(bits.dtype)).view(near.dtype)


TILE = 8, 128  # rows and columns of a tile, as CUDA's kernel packs them with eight inner tiles


def pack_tiles(codes: Tensor) -> Tensor:
    """int32 [N / 8, K / 128, 32, 4] of codes uint8 [N, K], for CUDA's kernel."""
    pairs = codes[:, ::2] << 4 | codes[:, 1::2]
    return torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), TILE[1] // 16)


def unpack_tiles(packed: Tensor) -> Tensor:
    """The inverse of pack_tiles: one tile, packed of the numbers of its own places, tells where every code is."""
    places = torch.arange(TILE[0] * TILE[1], device=packed.device).view(TILE)
    order: Any = sum(nibbles(pack_tiles((places >> shift & 15).to(torch.uint8))) << shift for shift in (0, 4, 8))
    codes = nibbles(packed)[..., order.flatten().argsort()].to(torch.uint8)
    return codes.unflatten(-1, TILE).transpose(1, 2).flatten(2).flatten(0, 1)


def nibbles(packed: Tensor) -> Tensor:
    """int32 [N / 8, K / 128, 1024]: the codes of each tile, in the order of its words."""
    shifts = torch.arange(0, 32, 4, device=packed.device, dtype=torch.int32)
    return (packed.flatten(2)[..., None] >> shifts & 15).flatten(2)


def pack_blocks(codes: Tensor) -> Tensor:
    """uint8 [N, K / 2] of codes uint8 [N, K], for the CPU's kernel."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)


def unpack_blocks(packed: Tensor) -> Tensor:
    """The codes uint8 [N, K] that `_convert_weight_to_int4pack_for_cpu` has packed into [N, K / 2].

    Rows lie in blocks, in an order that depends on the processor; each column of a block is a run of bytes. So the codes of
    two columns, packed as numbers of their own places, tell where every row is.
    """
    count, columns = packed.shape[0], 2 * packed.shape[1]
    places = torch.arange(2 * count, dtype=torch.int32).view(count, 2)  # row · 2 + column
    low = high = torch.zeros(count, dtype=torch.int32)
    for shift in range(0, (2 * count).bit_length(), 4):
        probe = torch.ops.aten._convert_weight_to_int4pack_for_cpu(places >> shift & 15, 1).flatten().int()
        low, high = low | (probe & 15) << shift, high | (probe >> 4) << shift
    codes = torch.empty(count, columns, dtype=torch.uint8)
    stream, runs = packed.flatten(), torch.unique_consecutive(low % 2, return_counts=True)[1].tolist()
    start = 0
    for width in runs[::2]:  # one block: `width` bytes a column
        block = stream[start * columns // 2 :][: width * columns].view(columns, width)
        codes[low[start : start + width] // 2] = (block & 15).T
        codes[high[start : start + width] // 2] = (block >> 4).T
        start += 2 * width
    return codes
