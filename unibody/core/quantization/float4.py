"""Numbers of four bits, E2M1 (Open Compute Project, microscaling formats, version 1.0, §5.3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # codes from 8 are the negative ones


def round_to_float4(values: Tensor) -> Tensor:
    """The nearest of FLOAT4 and its negatives; from halfway between two, the one whose code is even."""
    table = values.new_tensor(FLOAT4)
    middles, size = (table[1:] + table[:-1]) / 2, values.abs()
    codes = torch.bucketize(size, middles)  # the lower of two at their middle
    upper = (codes % 2 == 1) & (size == middles[codes.clamp(max=6)])
    numbers = table[codes + upper.long()]
    return torch.where(values < 0, -numbers, numbers)


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
