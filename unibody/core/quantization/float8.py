"""Numbers of eight bits, float8_e4m3fn, read by their bits: on a CPU several times faster than torch's conversion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def widen_float8(values: Tensor) -> Tensor:
    """Finite float8_e4m3fn as bfloat16, exactly: sign, exponent and mantissa in their places there, times 2¹²⁰."""
    bits = values.view(torch.int8).to(torch.int16)  # the sign fills the upper half
    return bits.bitwise_left_shift_(4).bitwise_and_(-0x7810).view(torch.bfloat16) * 2.0**120


def float8_as_half(values: Tensor) -> Tensor:
    """Finite float8_e4m3fn as float16, exactly, but for a factor of 2⁻⁸: the difference of the exponents' origins."""
    bits = values.view(torch.int8).to(torch.int16)
    return bits.bitwise_left_shift_(7).bitwise_and_(-0x4001).view(torch.float16)


def float8_product(x: Tensor, codes: Tensor, columns: Tensor | None = None, height: int = 0) -> Tensor:
    """float32 [..., N] of x float32 [..., K] and codes [N, K]; for each `height` rows x is multiplied by a row of `columns` first.

    A hundred or so rows are widened at a time, all in the same two places: these stay in the cache, and no pages are asked for.
    """
    parts, found = codes.split(height or max(1, 2**18 // codes.shape[1])), []
    halves = torch.empty(parts[0].shape, dtype=torch.int16, device=codes.device)
    values = torch.empty(parts[0].shape, device=codes.device)
    for number, part in enumerate(parts):
        bits, rows = halves[: len(part)].copy_(part.view(torch.int8)), values[: len(part)]
        half = bits.mul_(2**7).bitwise_and_(-0x4001).view(torch.float16)  # as float8_as_half; faster than a shift
        found.append(F.linear(x if columns is None else x * columns[number], rows.copy_(half)))
    return 256 * torch.cat(found, -1)


def round_to_float8(values: Tensor) -> Tensor:
    """The nearest float8_e4m3fn; what lies beyond its range becomes its largest, where a cast alone gives NaN."""
    return values.clamp(-448, 448).to(torch.float8_e4m3fn)
