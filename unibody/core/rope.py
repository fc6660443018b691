"""Frequencies of rotary position embeddings, one function for each way to stretch them over longer texts.

Each takes the configuration's rope parameters (with original_max_position_embeddings), the dimension D of a head and
the length of the text, and returns the angles per token [D/2], float32, and a factor for cosine and sine.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def default_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """θ_i = base^(-2i / D) for i in 0 … D/2 - 1 (RoPE, 2104.09864, equation 15)."""
    return 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, device="cpu").float() / dim), 1.0


def linear_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """All angles divided by one factor: position interpolation (2306.15595, equation 4)."""
    frequencies, scaling = default_frequencies(rope, dim, length)
    return frequencies / rope["factor"], scaling


def dynamic_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """A base that grows with the text beyond the trained length: dynamic NTK-aware scaling (2309.00071, appendix A)."""
    stretch = max(1.0, length / rope["original_max_position_embeddings"])
    base = rope["rope_theta"] * (rope["factor"] * stretch - (rope["factor"] - 1)) ** (dim / (dim - 2))
    return default_frequencies({**rope, "rope_theta": base}, dim, length)


def yarn_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """Fast angles kept, slow ones divided, a ramp between: YaRN (2309.00071, equations 17 to 23)."""
    factor, original = rope["factor"], rope["original_max_position_embeddings"]

    def index(turns: float) -> float:  # of the frequency that makes so many turns over the original length
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    low, high = index(rope.get("beta_fast") or 32), index(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, device="cpu").float() - low) / max(high - low, 0.001)).clamp(0, 1)
    frequencies, _ = default_frequencies(rope, dim, length)
    scaling = rope.get("attention_factor")
    if scaling is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        scaling = temperature(rope["mscale"]) / temperature(rope["mscale_all_dim"])
    return frequencies / factor * ramp + frequencies * (1 - ramp), temperature(1.0) if scaling is None else scaling


def llama3_frequencies(rope: dict[str, Any], dim: int, length: int) -> tuple[Tensor, float]:
    """Long waves divided, short ones kept, a blend between, by turns over the original length (Llama 3.1, 2407.21783)."""
    frequencies, scaling = default_frequencies(rope, dim, length)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / rope["factor"] + kept * frequencies, scaling
