"""Numbers of eight bits, float8_e4m3fn."""

from __future__ import annotations

import torch
from torch import Tensor


def widen_float8(values: Tensor) -> Tensor:
    """Finite float8_e4m3fn as bfloat16, exactly, by their bits: on a CPU several times faster than `.to(torch.bfloat16)`.

    Exponent and mantissa move to their places in bfloat16, whose exponents count from 120 lower.
    """
    bits = values.view(torch.int8).to(torch.int16)
    return ((bits & 0x7F) << 4 | (bits & -0x8000)).view(torch.bfloat16) * 2.0**120


def round_to_float8(values: Tensor) -> Tensor:
    """The nearest float8_e4m3fn; what lies beyond its range becomes its largest, where a cast alone gives NaN."""
    return values.clamp(-448, 448).to(torch.float8_e4m3fn)
