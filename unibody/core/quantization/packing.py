"""Small integers in the words of larger ones."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """Codes [n, …], 0 ≤ code < 2^bits, as int32 [n · bits / 32, …]: one stream of bits down the first dimension.

    The first code takes the lowest bits of the first word. With 3 bits, 32 codes fill 3 words, and some lie in two.
    """
    count = 32 if 32 % bits else 32 // bits  # codes that fill whole words
    if codes.shape[0] % count:
        raise ValueError(f"{len(codes)} codes of {bits} bits do not fill words: expected a multiple of {count}")
    groups = codes.to(torch.int64).unflatten(0, (-1, count))  # [n / count, count, …]
    words = groups.new_zeros(len(groups), count * bits // 32 + 1, *codes.shape[1:])
    for index in range(count):
        word, shift = divmod(index * bits, 32)
        value = groups[:, index] << shift
        words[:, word] |= value & 0xFFFFFFFF
        words[:, word + 1] |= value >> 32
    return words[:, :-1].to(torch.int32).flatten(0, 1)  # the same 32 bits


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """The codes uint8 [m · 32 / bits, …] of int32 words [m, …], as pack_words packs them."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, device=words.device, dtype=torch.int32)
        shifts = shifts.view(-1, *[1] * (words.dim() - 1))
        return (words[:, None] >> shifts & (2**bits - 1)).to(torch.uint8).flatten(0, 1)
    groups, codes = words.unflatten(0, (-1, bits)), []  # [m / bits, bits, …]
    for index in range(32):
        word, shift = divmod(index * bits, 32)
        here = min(bits, 32 - shift)  # of its bits, the rest are the lowest of the next word
        code = groups[:, word] >> shift & (2**here - 1)
        if here < bits:
            code = code | (groups[:, word + 1] & (2 ** (bits - here) - 1)) << here
        codes.append(code.to(torch.uint8))
    return torch.stack(codes, 1).flatten(0, 1)
