"""Group-wise codes as GPUs read them, whatever the checkpoint's words: down the columns, as GPTQ's second version stores them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.packing import pack_words, unpack_words


class ColumnsLayout:
    """`qweight` int32 [K · b / 32, N], `qzeros` int32 [G, N · b / 32], `scales` [G, N]; groups of consecutive columns.

    Zero points that are no integers are [G, N], in the type that they have.
    """

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        return {
            "qweight": pack_words(codes.T, layer.bits),
            "qzeros": (zeros if zeros.is_floating_point() else pack_words(zeros, layer.bits)).T.contiguous(),
            "scales": scales.T.contiguous(),
        }

    @staticmethod
    def unpack(layer: Any, held: dict[str, Tensor]) -> dict[str, Tensor]:
        codes = unpack_words(held["qweight"], layer.bits).T.contiguous()  # kernels read rows
        zeros = held["qzeros"].T.contiguous()
        zeros = zeros if zeros.is_floating_point() else unpack_words(zeros, layer.bits)
        found: dict[str, Tensor] = layer.pack_codes(GroupwiseCodes(codes, held["scales"].T.contiguous(), zeros))
        return found
