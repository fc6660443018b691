"""SpQR: three bits, doubly quantized, beside sparse outliers (2306.03078). The configuration; layers are not made yet.

| | |
|---|---|
| `dense_weights` | int64 [N · K / 16]: in tiles of 16 × 16 a word for each row: 3 bits of scale, zero point and 16 codes each, |
| | and a byte of the tile's second-order scales and zero points, four float16 |
| `row_offsets`, `col_vals` | int32: the outliers, column and float16 value, row by row |
| `in_perm` | the order of the columns |
| W | scale · (code − zero) + outlier, in float16 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unibody.core.quantization.config import QuantizationConfigMixin, require_choice

__all__ = ["SpQRConfig"]


@dataclass(eq=False)
class SpQRConfig(QuantizationConfigMixin):
    """The one setting that there is, and the sizes of the tensors, which do not follow from it."""

    quant_method: ClassVar[str] = "spqr"

    bits: int = 3
    beta1: int = 16
    beta2: int = 16
    shapes: dict[str, int] | None = None
    modules_to_not_convert: list[str] | None = None

    def post_init(self) -> None:
        self.shapes = {} if self.shapes is None else self.shapes
        for name, only in (("bits", 3), ("beta1", 16), ("beta2", 16)):
            require_choice(self, name, (only,))
