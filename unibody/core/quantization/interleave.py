"""AWQ's order of eight 4-bit codes in a word of 32 bits: first those of even columns, then those of odd ones."""

from __future__ import annotations

from torch import Tensor

from unibody.core.quantization.packing import pack_words, unpack_words

COLUMN_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the i-th nibble, from the lowest bits, is of this column


def pack_interleaved(codes: Tensor) -> Tensor:
    """4-bit codes [R, N] as int32 words [R, N / 8]."""
    return pack_words(codes.unflatten(1, (-1, 8))[..., list(COLUMN_ORDER)].flatten(1).T, 4).T.contiguous()


def unpack_interleaved(words: Tensor) -> Tensor:
    """The codes uint8 [R, N] of words [R, N / 8]."""
    places = [COLUMN_ORDER.index(column) for column in range(8)]
    return unpack_words(words.T, 4).T.unflatten(1, (-1, 8))[..., places].flatten(1)
