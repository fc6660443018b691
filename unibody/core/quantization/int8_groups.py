"""Codes of 8 bits whose columns share a scale in groups, a byte each, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes


class Int8GroupsLayout:
    """`codes` uint8 [N, K]; `group_scales` and `group_zeros` [N, G] as the checkpoint has them."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        codes, scales, zeros, _ = layer.unpack_codes(stored)
        return {"codes": codes.contiguous(), "group_scales": scales.contiguous(), "group_zeros": zeros.contiguous()}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        return layer.pack_codes(GroupwiseCodes(held["codes"], held["group_scales"], held["group_zeros"]))


def int8_groups_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of bfloat16 inputs [..., K]; half a million codes at a time become float32, all in the same place.

    Up to eight rows of inputs are multiplied in float32, where what zero points add is a product with the sums of groups of
    inputs; for more, torch's product of bfloat16 is faster, and the weight is rounded to it once.
    """
    held, rows = layer._buffers, x.reshape(-1, x.shape[-1])
    scales, zeros, few = held["group_scales"].float(), held["group_zeros"].float(), len(rows) <= 8
    codes, step = held["codes"].unflatten(1, (scales.shape[1], -1)), max(1, 2**19 // layer.in_features)
    rows, values, parts = rows.float() if few else rows, torch.empty(codes[:step].shape), []
    for part, scale, zero in zip(*(tensor.split(step) for tensor in (codes, scales, zeros)), strict=True):
        weight = values[: len(part)].copy_(part)  # [n, G, g]
        weight = (weight if few else weight.sub_(zero[..., None])).mul_(scale[..., None]).flatten(1)
        parts.append(F.linear(rows, weight.to(rows.dtype)))
    y = torch.cat(parts, 1)
    y = y.addmm_(rows.unflatten(1, codes.shape[1:]).sum(-1), (scales * zeros).T, alpha=-1) if few else y
    y = y if layer.bias is None else y.add_(layer.bias)
    return y.to(x.dtype).view(*x.shape[:-1], -1)
