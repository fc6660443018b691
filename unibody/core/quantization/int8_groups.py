"""Torch's kernel for int8 weights, group by group: codes of 8 bits whose columns share a scale in groups."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes


class Int8GroupsLayout:
    """`int8` [N, K], codes less their middle, 128; `group_scales` and `group_zeros` [N, G] as the checkpoint has them."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        groups = {"group_scales": scales.contiguous(), "group_zeros": zeros.contiguous()}
        return {"int8": (codes.contiguous() ^ 128).view(torch.int8), **groups}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        codes = held["int8"].view(torch.uint8) ^ 128
        return layer.pack_codes(GroupwiseCodes(codes, held["group_scales"], held["group_zeros"]))


def int8_groups_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K]; sums of groups in float32.

    What a group's zero point adds is its product with the sum of the group's inputs. For more than four rows of inputs torch's
    product of bfloat16 is faster, and its kernel for int8 reads 16 columns at once; a million codes are converted at a time, less
    their zero points, which are small numbers beside their middle.
    """
    held = layer._buffers
    scales, zeros, rows = held["group_scales"], held["group_zeros"].float(), x.reshape(-1, x.shape[-1])
    codes = held["int8"].unflatten(1, (scales.shape[1], -1))  # [N, G, g]
    if len(rows) <= 4 and codes.shape[-1] % 16 == 0:
        parts = rows.unflatten(1, codes.shape[1:])  # [M, G, g]
        y, one = parts.float().sum(-1) @ layer.offsets(scales.float(), zeros).T, torch.ones(len(codes), dtype=x.dtype)
        groups = parts.transpose(0, 1).contiguous(), codes.unbind(1), scales.float().T.contiguous()
        for part, some, scale in zip(*groups, strict=True):
            y.addcmul_(torch._weight_int8pack_mm(part, some.contiguous(), one).float(), scale)
    else:
        step = max(1, 2**20 // layer.in_features)
        chunks = (tensor.split(step) for tensor in (codes, (zeros - 128).to(x.dtype), scales.to(x.dtype)))
        weights = (c.to(x.dtype).sub_(z[..., None]).mul_(s[..., None]) for c, z, s in zip(*chunks, strict=True))
        y = torch.cat([F.linear(rows, weight.flatten(1)) for weight in weights], 1)
    y = y if layer.bias is None else y.add_(layer.bias)
    return y.to(x.dtype).view(*x.shape[:-1], -1)
