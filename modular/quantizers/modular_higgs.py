"""HIGGS: Hadamard-transformed weights on Gaussian-optimal grids (2411.17525). The configuration; layers are not made yet.

| | |
|---|---|
| `weight` | int16 [N · bits / 16, K]: indices of grid points, in the order of FLUTE's tiles, which depends on the GPU |
| `scales` | [N, K / group_size]: the norm of each block of hadamard_size columns / √hadamard_size |
| `tables`, `tables2` | the grid's values, singly and in pairs |
| `tune_metadata` | which of FLUTE's tiles the weights lie in |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from unibody.core.quantization.config import QuantizationConfigMixin, require_choice

__all__ = ["HiggsConfig"]


@dataclass(eq=False)
class HiggsConfig(QuantizationConfigMixin):
    """Bits, the dimension of the grid, the sizes of transformed blocks and of groups."""

    quant_method: ClassVar[str] = "higgs"

    bits: int = 4
    p: int = 2
    modules_to_not_convert: list[str] | None = None
    hadamard_size: int = 512
    group_size: int = 256
    tune_metadata: dict[str, Any] | None = None

    def post_init(self) -> None:
        self.tune_metadata = self.tune_metadata or {}
        require_choice(self, "bits", (2, 3, 4))
        require_choice(self, "p", (1, 2))
        require_choice(self, "group_size", (64, 128, 256))
        if self.hadamard_size % self.group_size:
            raise ValueError(
                f"HiggsConfig: hadamard_size {self.hadamard_size} is no multiple of group_size {self.group_size}"
            )
