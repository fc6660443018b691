"""Frequencies of rotary position embeddings, one function for each way to stretch them over longer texts.

Each takes rope parameters (original_max_position_embeddings among them), the size D of a head and the length of the
text, and returns the angles per token [D/2] in float32, and a factor for their cosines and sines.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def default_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """Angles per token θ_i = base^(-2i / D) [D/2] (RoPE, 2104.09864, equation 15) and a factor for cosine and sine."""
    return 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, device="cpu").float() / dim), 1.0


def linear_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """All angles divided by one factor: position interpolation (2306.15595, equation 4)."""
    return default_frequencies(rope, dim, length)[0] / rope["factor"], 1.0


def dynamic_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """A base that grows with texts longer than the trained length: dynamic NTK-aware scaling (2309.00071, appendix)."""
    stretch = rope["factor"] * max(1.0, length / rope["original_max_position_embeddings"]) - (rope["factor"] - 1)
    return default_frequencies({**rope, "rope_theta": rope["rope_theta"] * stretch ** (dim / (dim - 2))}, dim, length)


def llama3_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """Angles that turn often over the original length kept, slow ones divided, blended between (Llama 3.1)."""
    angles, low, high = default_frequencies(rope, dim, length)[0], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = angles * rope["original_max_position_embeddings"] / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * angles / rope["factor"] + kept * angles, 1.0


def yarn_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """Fast angles kept, slow ones divided, a ramp between, and a temperature: YaRN (2309.00071, sections 3.2 to 3.4)."""
    factor, original = rope["factor"], rope["original_max_position_embeddings"]
    # Which angle turns `beta` times over the original length.
    low, high = (
        dim * math.log(original / (2 * math.pi * beta)) / (2 * math.log(rope["rope_theta"]))
        for beta in (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
    )
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, device="cpu") - low) / max(high - low, 0.001)).clamp(0, 1)
    angles = default_frequencies(rope, dim, length)[0]
    scales = (rope["mscale"], rope["mscale_all_dim"]) if rope.get("mscale") and rope.get("mscale_all_dim") else (1, 0)
    heat, base = (1 + 0.1 * scale * math.log(max(factor, 1)) for scale in scales)
    return angles / factor * ramp + angles * (1 - ramp), rope.get("attention_factor") or heat / base
