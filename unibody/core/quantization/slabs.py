"""Words that each hold one code of several slabs of rows: row r of slab j lies in word r, at the slab's own bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pack_slabs(codes: Tensor, shifts: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Codes [R, C] as words [⌈R / slabs⌉, C] of a type; slab j lies at bit shifts[j]. Rows that are lacking count as zeros."""
    slabs = F.pad(codes, (0, 0, 0, -len(codes) % len(shifts))).to(dtype).unflatten(0, (len(shifts), -1))
    words = torch.zeros_like(slabs[0])
    for slab, shift in zip(slabs, shifts, strict=True):
        words |= slab << shift
    return words


def read_slabs(words: Tensor, shifts: Sequence[int], bits: int) -> Iterator[Tensor]:
    """The codes [R, C] of one slab after the other, in the words' type."""
    for shift in shifts:
        yield words if len(shifts) == 1 else (words >> shift).bitwise_and_(2**bits - 1)


def unpack_slabs(words: Tensor, shifts: Sequence[int], bits: int) -> Tensor:
    """The codes uint8 [R', C] of words, with the rows that filled up the last slab."""
    if len(shifts) == 1:
        return words
    return torch.cat([codes.to(torch.uint8) for codes in read_slabs(words, shifts, bits)])
