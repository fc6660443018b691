"""Values of four bits by a table of 16: NF4 and FP4 (2305.14314), rounding in blocks, and products."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FP4 = (0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25)
TABLES = {"nf4": NF4, "fp4": (*FP4, *(0 - value for value in FP4))}


def dynamic_map() -> Tensor:
    """float32 [256], ascending: for each of seven powers of ten the middles of 2^i equal steps, both signs, and 0 and 1."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        middles = 10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


def round_blocks(values: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Codes uint8 [n] of the nearest entries of a table for values [n], and the largest magnitude of each block, float32."""
    values = values.float()
    count = values.numel() // block * block
    blocks = F.pad(values, (0, -values.numel() % block)).view(-1, block)
    largest = blocks.abs().amax(1)
    scaled = (blocks * (1 / largest)[:, None]).flatten()[: values.numel()]
    scaled[count:] = values[count:] / largest[-1]  # the last block, if it is not whole, is divided
    order = table.argsort(stable=True)
    middles = (table[order][1:] + table[order][:-1]) / 2
    return order[torch.bucketize(scaled.nan_to_num(0).clamp(-1, 1), middles)].to(torch.uint8), largest


@cache
def word_values(table: tuple[float, ...], count: int) -> Tensor:
    """int64: for one byte of codes the two values in float32, for two bytes the four in bfloat16, the first in the low bits."""
    codes, values = torch.arange(16**count), torch.tensor(table, dtype=torch.float32 if count == 2 else torch.bfloat16)
    return torch.stack([values[codes >> shift & 15] for shift in (4, 0, 12, 8)[:count]], 1).view(torch.int64).flatten()


def table_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K], by the layer's `table_blocks()`; one row in float32, more in bfloat16.

    64 bits are looked up at once, and a million values before they are multiplied by their scales: those stay in the cache.
    """
    packed, table, scales, block = layer.table_blocks()
    rows, columns, packed = x.reshape(-1, x.shape[-1]), layer.in_features, packed.flatten()
    packed = packed.clone() if packed.storage_offset() % 2 else packed  # it may lie anywhere in a file
    count, kind, word = (2, torch.float32, torch.uint8) if len(rows) == 1 else (4, x.dtype, torch.uint16)
    words, values = packed.view(word), word_values(tuple(table.tolist()), count)
    rows, scales, step = rows.to(kind), scales.to(kind)[:, None], max(1, 2**20 // columns) * columns
    places = torch.empty(min(step // count, len(words)), dtype=torch.int32)
    found, parts = torch.empty_like(places, dtype=torch.int64), []
    for some, scale in zip(words.split(step // count), scales.split(step // block), strict=True):
        part = torch.index_select(values, 0, places[: len(some)].copy_(some), out=found[: len(some)])
        weight = part.view(kind).view(-1, block).mul_(scale)
        parts.append(F.linear(rows, weight.view(-1, columns)))
    y = torch.cat(parts, 1).to(x.dtype)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)
