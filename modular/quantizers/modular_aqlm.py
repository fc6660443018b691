"""AQLM: additive quantization, weights as sums of entries of codebooks (2401.06118). The configuration; layers are not made yet.

| | |
|---|---|
| `codes` | int8 or int16 [N / out_group_size, K / in_group_size, num_codebooks]: the bits of unsigned codes |
| `codebooks` | [num_codebooks, 2^nbits_per_codebook, out_group_size, in_group_size] |
| `scales` | [N / out_group_size, 1, 1, 1] |
| W | sum of the codebooks' entries · scale, in tiles of out_group_size × in_group_size |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unibody.core.quantization.config import QuantizationConfigMixin

__all__ = ["AqlmConfig"]


@dataclass(eq=False)
class AqlmConfig(QuantizationConfigMixin):
    """Sizes of groups and codebooks."""

    quant_method: ClassVar[str] = "aqlm"

    in_group_size: int = 8
    out_group_size: int = 1
    num_codebooks: int = 1
    nbits_per_codebook: int = 16
    linear_weights_not_to_quantize: list[str] | None = None  # full names of weights

    def post_init(self) -> None:
        for name in ("in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"AqlmConfig: {name} is {value}, expected a positive number")
        self.linear_weights_not_to_quantize = self.linear_weights_not_to_quantize or []
