"""Half-quadratic quantization: zero points that minimise a norm of the error, without data (mobiusml.github.io/hqq_blog)."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_groups(groups: Tensor, bits: int, axis: int, narrow: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """Codes uint8, scales and zero points of a float32 weight in groups along `axis`; groups no wider than `narrow` have a scale of 1.

    Half-quadratic steps: the error is shrunk towards a sparse one (the proximal operator of the l_p norm, p = 0.7), and the
    zero points then are the mean of what is left; beta grows, until the mean error does not.
    """
    low, high = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
    top, width = 2**bits - 1, high - low
    scale = torch.where(width <= narrow, 1.0, top / width).clamp(max=2e4)
    zero = -low * scale
    zero = zero.round() if bits == 4 else zero
    beta, best = 10.0, float("inf")  # hqq does not raise beta, as its text would have it
    for _ in range(20):
        codes = (groups * scale + zero).round().clamp(0, top)
        near = (codes - zero) / scale
        error = groups - near
        sparse = error.sign() * (error.abs() - (1 / beta) * error.abs().pow(0.7 - 1)).relu()
        zero = (codes - (groups - sparse) * scale).mean(axis, keepdim=True)
        mean = float(error.abs().mean())
        if mean >= best:
            break
        best = mean
    return (groups * scale + zero).round().clamp(0, top).to(torch.uint8), 1 / scale, zero


def fit_scales(groups: Tensor, bits: int) -> Tensor:
    """Scales [N, G] of groups [N, G, g] that are the least squares' for their own signed codes, in float32: torchao's HQQ_SCALE_ONLY."""
    values, lowest, least = groups.float(), -(2 ** (bits - 1)), torch.finfo(torch.float32).eps
    scales = (values.abs().amax(-1) / -lowest).clamp(min=least)
    for _ in range(20):
        codes = (values / scales[..., None]).round().clamp(lowest, -lowest - 1)
        scales = ((values * codes).sum(-1) / codes.square().sum(-1).clamp(min=least)).clamp(min=least)
    return scales
