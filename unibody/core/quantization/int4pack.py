"""Torch's kernels for 4-bit weights, and the layouts in which they read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes

ONES = 0x1111111111111111  # the lowest bit of each nibble of an int64


class Int4PackLayout:
    """Nibbles as torch's kernel for the device wants them, and bfloat16 groups: W = (nibble − 8) · scale + offset.

    Codes of 2 and 3 bits are held in as many, and become nibbles with 8 in their middle, so that offsets stay small. What
    scales and zero points lose in bfloat16 is kept beside them, so that the checkpoint's come back to the bit.
    """

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Any]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        layer.group_types = scales.dtype, zeros.dtype
        offsets = layer.offsets(scales.float(), zeros.float())
        groups = torch.stack((scales.float().T, offsets.T), -1).bfloat16()  # [G, N, 2]
        near = near_groups(layer, groups)
        packed = pack_tiles(codes) if codes.is_cuda else narrow(pack_blocks(codes), layer.bits)
        rest = {"scales_rest": difference(scales, near[0]), "zeros_rest": difference(zeros, near[1])}
        return {"int4": packed, "groups": groups, **rest}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        packed, near = held["int4"], near_groups(layer, held["groups"])
        scales, zeros = add_difference(near[0], held["scales_rest"]), add_difference(near[1], held["zeros_rest"])
        is_tiled = packed.dim() == 4
        codes = unpack_tiles(packed) if is_tiled else unpack_blocks(widen(packed, layer.bits, len(scales)))
        return layer.pack_codes(GroupwiseCodes(codes - (8 - 2 ** (layer.bits - 1)), scales, zeros))


def int4pack_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], rounded as the format says; sums in float32."""
    held, x = layer._buffers, layer.round_inputs(x)  # an attribute of a module would be looked for in three places
    packed, groups, rows = held["int4"], held["groups"], x if x.dim() == 2 else x.flatten(0, -2)
    if packed.dim() == 4:
        y = torch.ops.aten._weight_int4pack_mm(rows, packed, layer.group_size, groups)
    else:
        packed = widen(packed, layer.bits, groups.shape[1])
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, layer.group_size, groups)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], -1)


def narrow(packed: Tensor, bits: int) -> Tensor:
    """Bytes of two nibbles with codes of 2 or 3 bits, in as many: [1, n / 2], two codes in a nibble; [3, n / 4], three and a bit of a fourth."""
    if bits == 4:
        return packed
    parts = packed.view(2 if bits == 2 else 4, -1)
    if bits == 2:
        return parts[:1] | parts[1:] << 2
    return parts[:3] | (parts[3] >> torch.arange(3, dtype=torch.uint8)[:, None] & 0x11) << 3


def widen(narrowed: Tensor, bits: int, rows: int) -> Tensor:
    """The inverse of narrow, [rows, K / 2], with 8 in the middle of the codes; eight bytes at a time."""
    if bits == 4:
        return narrowed
    words = narrowed.view(torch.int64)
    found = words.new_empty(2 if bits == 2 else 4, words.shape[1])
    torch.bitwise_and(words, (2**bits - 1) * ONES, out=found[:-1])
    rest = (words >> bits).bitwise_and_((3 if bits == 2 else 1) * ONES)
    found[-1] = rest[0] if bits == 2 else rest[0].add_(rest[1], alpha=2).add_(rest[2], alpha=4)
    return found.add_((8 - 2 ** (bits - 1)) * ONES).view(torch.uint8).view(rows, -1)


def near_groups(layer: Any, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zero points as far as bfloat16 groups tell them."""
    scale_type, zero_type = layer.group_types
    scales, offsets = groups.float().permute(2, 1, 0)  # [N, G]
    zeros = layer.zeros(scales, offsets)
    zeros = zeros if zero_type.is_floating_point else zeros.nan_to_num(0, 0, 0).round().clamp(-128, 127)
    return scales.to(scale_type), zeros.to(zero_type)


def difference(exact: Tensor, near: Tensor) -> Tensor | None:
    """What takes the bits of `near` to those of `exact`, in one byte each if that is enough; None if they are the same."""
    rest = as_integers(exact) - as_integers(near)
    short = rest.to(torch.int8)
    return None if not rest.any() else short if torch.equal(short.to(rest.dtype), rest) else rest


def add_difference(near: Tensor, rest: Tensor | None) -> Tensor:
    return near if rest is None else (as_integers(near) + rest).view(near.dtype)


def as_integers(values: Tensor) -> Tensor:
    return values.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32}[values.element_size()])


def pack_tiles(codes: Tensor) -> Tensor:
    """int32 [N / 8, K / 128, 32, 4] of codes uint8 [N, K], for CUDA's kernel: tiles of 8 rows and 128 columns."""
    pairs = codes[:, ::2] << 4 | codes[:, 1::2]
    return torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8)


def unpack_tiles(packed: Tensor) -> Tensor:
    """The inverse of pack_tiles."""
    places = nibble_places(pack_tiles, 8, 128, packed.device)
    codes = nibbles(packed).view(-1, 1024)[:, places.flatten()].view(*packed.shape[:2], 8, 128)
    return codes.transpose(1, 2).reshape(8 * packed.shape[0], -1)


def pack_blocks(codes: Tensor) -> Tensor:
    """uint8 [N, K / 2] of codes uint8 [N, K], for the CPU's kernel: blocks of rows, each column of a block a run of nibbles."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)


def unpack_blocks(packed: Tensor) -> Tensor:
    """The inverse of pack_blocks; how many rows a block has, and in which order, depends on the processor."""
    first, second = nibble_places(pack_blocks, len(packed), 2, packed.device).unbind(1)  # of two columns
    height = int(second[0] - first[0])  # of a block; only the last may have fewer rows
    blocks = zip(packed.split(height), first.split(height), strict=True)
    columns = 2 * packed.shape[1]
    return torch.cat([nibbles(block).view(columns, -1)[:, place - place.min()].T for block, place in blocks])


def nibble_places(pack: Any, rows: int, columns: int, device: torch.device) -> Tensor:
    """int64 [rows, columns]: where each code lies among the nibbles, by packing the numbers of the codes, four bits at a time."""
    numbers = torch.arange(rows * columns, device=device).view(rows, columns)
    found = torch.zeros(rows * columns, dtype=torch.int64, device=device)
    for shift in range(0, len(found).bit_length(), 4):
        found |= nibbles(pack((numbers >> shift & 15).byte())).long() << shift
    return found.argsort().view(rows, columns)


def nibbles(packed: Tensor) -> Tensor:
    """Of each byte the low four bits, then the high ones."""
    packed = packed.view(torch.uint8)
    return torch.stack((packed & 15, packed >> 4), -1).flatten()
