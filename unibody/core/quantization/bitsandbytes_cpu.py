"""bitsandbytes' kernel for 4-bit tables on CPUs with AVX512_BF16, and its layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Avx512Bf16Layout:
    """The weight as bitsandbytes' own kernel for CPUs with AVX512_BF16 wants it, beside the rest of the checkpoint's tensors.

    `packed` uint8 [N, K / 2] holds blocks of 32 rows; in a block, for each two columns, the two codes of rows 0 to 15 in the low
    bits and those of rows 16 to 31 above them. `block_scales` are bfloat16 [K / block, N].
    """

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        rest = {name: tensor for name, tensor in stored.items() if name != "weight"}
        scales = layer.scales(stored).view(layer.out_features, -1).T.bfloat16().contiguous()
        codes = stored["weight"].view(torch.uint8).view(-1, 2, 16, layer.in_features // 2)
        low, high = codes.unbind(1)
        pairs = torch.stack((low >> 4 | high & 0xF0, low & 15 | high << 4), -1).view(torch.int16).squeeze(-1)
        packed = pairs.transpose(1, 2).contiguous().view(torch.uint8).view(layer.out_features, -1)
        return {"packed": packed, "block_scales": scales, **rest}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        rest = {name: held[name.replace(".", "_")] for name in layer.empty_tensors() if name != "weight"}
        pairs = held["packed"].view(-1, layer.in_features // 2, 16, 2).transpose(1, 2)
        first, second = pairs.unbind(-1)
        codes = torch.stack((first << 4 | second & 15, first & 0xF0 | second >> 4), 1)
        return {"weight": codes.view(-1).view(layer.config.bnb_4bit_quant_storage)[:, None], **rest}


def avx512_matmul(layer: Any, x: Tensor) -> Tensor:
    """bitsandbytes' kernel: bfloat16 products, sums in float32."""
    held, rows = layer._buffers, x if x.dim() == 2 else x.flatten(0, -2)
    shape, block = (layer.out_features, layer.in_features), layer.read_state()["blocksize"]
    packed, scales, table = held["packed"], held["block_scales"], held["weight_quant_map"]
    y = torch.ops.bitsandbytes.gemv_4bit(rows, packed, shape, scales, table, block)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], -1)
