"""torch's own kernels for 4-bit groups, on the CPU and on CUDA, and their layouts; on the CPU for codes of 2 and 3 bits, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes


class Int4PackLayout:
    """Nibbles as torch's kernel for the device wants them, and bfloat16 groups: W = (nibble − 8) · scale + offset.

    A nibble is a code of 4 bits; of smaller codes it is one plus as much as takes the middle to 8, so that offsets stay small.

    What scales and zero points lose in bfloat16 is kept beside them, so that the checkpoint's come back to the bit.
    """

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Any]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        layer.group_types = scales.dtype, zeros.dtype
        scale, offset = scales.bfloat16(), layer.offsets(scales.float(), zeros.float()).bfloat16()
        near = near_groups(layer, scale, offset)
        return {
            "int4": pack_tiles(codes) if codes.is_cuda else narrow(pack_blocks(codes), layer.bits),
            "groups": torch.stack((scale.T, offset.T), -1).contiguous(),  # [G, N, 2]
            "scales_rest": difference(scales, near[0]),
            "zeros_rest": difference(zeros, near[1]),
        }

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        near = near_groups(layer, held["groups"][..., 0].T, held["groups"][..., 1].T)
        scales, zeros = add_difference(near[0], held["scales_rest"]), add_difference(near[1], held["zeros_rest"])
        packed, rows = held["int4"], held["groups"].shape[1]
        codes = unpack_tiles(packed) if packed.dim() == 4 else unpack_blocks(widen(packed, layer.bits).view(rows, -1))
        return layer.pack_codes(GroupwiseCodes(codes, scales, zeros))


def int4pack_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], rounded as the format says; sums in float32."""
    x = layer.round_inputs(x)
    held = layer._buffers  # an attribute of a module would be looked for in three places
    packed, groups, rows = held["int4"], held["groups"], x if x.dim() == 2 else x.flatten(0, -2)
    if packed.dim() == 4:
        y = torch.ops.aten._weight_int4pack_mm(rows, packed, layer.group_size, groups)
    else:
        packed = packed if layer.bits == 4 else centre(widen(packed, layer.bits), layer.bits).view(groups.shape[1], -1)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, layer.group_size, groups)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], -1)


ONES = 0x1111111111111111  # the lowest bit of each nibble of an int64


def narrow(packed: Tensor, bits: int) -> Tensor:
    """Bytes of two nibbles whose codes have 2 or 3 bits, in as many bits: later ones in the bits that earlier ones leave free.

    uint8 [1, n / 2]: two codes in a nibble. Or [3, n / 4]: above each of three codes a bit of a fourth.
    """
    if bits == 4:
        return packed
    parts = packed.view(2 if bits == 2 else 4, -1)
    if bits == 2:
        return parts[:1] | parts[1:] << 2
    return torch.stack([parts[index] | (parts[3] >> index & 0x11) << 3 for index in range(3)])


def widen(narrowed: Tensor, bits: int) -> Tensor:
    """The inverse of narrow, up to its shape; eight bytes at a time."""
    if bits == 4:
        return narrowed
    words = narrowed.view(torch.int64)
    found = words.new_empty(2 if bits == 2 else 4, words.shape[1])
    rest = torch.bitwise_right_shift(words, bits, out=found[1:] if bits == 2 else None)
    torch.bitwise_and(words, (2**bits - 1) * ONES, out=found[:-1])
    if bits == 2:
        rest.bitwise_and_(3 * ONES)
    else:
        low, middle, high = rest.bitwise_and_(ONES)
        torch.bitwise_or(low, middle.bitwise_left_shift_(1), out=found[3])
        found[3].bitwise_or_(high.bitwise_left_shift_(2))
    return found.view(torch.uint8)


def centre(packed: Tensor, bits: int) -> Tensor:
    """Codes in nibbles, in place, with 8 in their middle."""
    packed.view(torch.int64).add_((8 - 2 ** (bits - 1)) * ONES)
    return packed


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
