"""Numbers of four bits, E2M1, and of six, E2M3 and E3M2 (Open Compute Project, microscaling formats, version 1.0, §5.3.2 and §5.3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from unibody.core.quantization.packing import pack_words, unpack_words

FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # codes from 8 are the negative ones


def round_to_float4(values: Tensor) -> Tensor:
    """The nearest of FLOAT4 and its negatives; from halfway between two, the one whose code is even."""
    numbers = nearest_in_table(values.abs(), values.new_tensor(FLOAT4))
    return torch.where(values < 0, -numbers, numbers)


def nearest_in_table(sizes: Tensor, table: Tensor) -> Tensor:
    """The nearest entries of an ascending table; from halfway between two, the even one."""
    middles = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(sizes, middles)  # the lower of two at their middle
    upper = (codes % 2 == 1) & (sizes == middles[codes.clamp(max=len(middles) - 1)])
    return table[codes + upper.long()]


def pack_float4(numbers: Tensor) -> Tensor:
    """uint8 [N, K / 2] of numbers [N, K] that are float4: the first of two in the low bits."""
    table = numbers.new_tensor(FLOAT4)
    codes = (torch.searchsorted(table, numbers.abs()) | torch.signbit(numbers).long() << 3).to(torch.uint8)
    return codes[:, ::2] | codes[:, 1::2] << 4


def unpack_float4(packed: Tensor) -> Tensor:
    """float32 [N, K] of bytes [N, K / 2], as pack_float4 packs them: two numbers of 32 bits are looked up as one of 64."""
    table = torch.tensor((*FLOAT4, *(0 - number for number in FLOAT4)), device=packed.device)
    pairs = torch.stack((table.repeat(16), table.repeat_interleave(16)), -1)  # of a byte, the low bits first
    found = pairs.view(torch.int64).view(-1).index_select(0, packed.reshape(-1).int())
    return found.view(torch.float32).view(packed.shape[0], -1)


# By their bits of exponent and mantissa: equal steps up to the first power of two, and as many in each; from 32, the negative ones.
FLOAT6 = {
    "e2m3": (
        *(step / 8 for step in range(8)),
        *((1 + step / 8) * 2**power for power in range(3) for step in range(8)),
    ),
    "e3m2": (
        *(step / 16 for step in range(4)),
        *((1 + step / 4) * 2.0**power for power in range(-2, 5) for step in range(4)),
    ),
}


def round_to_float6(values: Tensor, element: str) -> Tensor:
    """The nearest numbers of a FLOAT6 and their negatives, as round_to_float4 does it; zeros keep their sign."""
    return torch.copysign(nearest_in_table(values.abs(), values.new_tensor(FLOAT6[element])), values)


def pack_float6(numbers: Tensor, element: str) -> Tensor:
    """uint8 [N, 3 K / 4] of numbers [N, K] that are float6: one stream of bits along a row, the first lowest."""
    table = numbers.new_tensor(FLOAT6[element])
    codes = torch.searchsorted(table, numbers.abs()) | torch.signbit(numbers).long() << 5
    return pack_words(codes.T, 6).T.contiguous().view(torch.uint8)


def unpack_float6(packed: Tensor, element: str) -> Tensor:
    """float32 [N, K] of bytes [N, 3 K / 4], as pack_float6 packs them."""
    codes, table = unpack_words(packed.view(torch.int32).T, 6).T, FLOAT6[element]
    return torch.tensor((*table, *(-number for number in table)), device=packed.device)[codes.int()]
