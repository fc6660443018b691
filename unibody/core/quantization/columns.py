"""Group-wise codes as GPUs read them, whatever the checkpoint's words: down the columns, as GPTQ's second version stores them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.packing import pack_words, unpack_words


class ColumnsLayout:
    """`qweight` int32 [K · b / 32, N], `qzeros` int32 [G, N · b / 32], `scales` [G, N]; groups of consecutive columns."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        return {
            "qweight": pack_words(codes.T, layer.bits),
            "qzeros": pack_words(zeros, layer.bits).T.contiguous(),
            "scales": scales.T.contiguous(),
        }

    @staticmethod
    def unpack(layer: Any, held: dict[str, Tensor]) -> dict[str, Tensor]:
        codes, zeros = unpack_words(held["qweight"], layer.bits).T, unpack_words(held["qzeros"].T, layer.bits)
        found: dict[str, Tensor] = layer.pack_codes(GroupwiseCodes(codes, held["scales"].T.contiguous(), zeros))
        return found
