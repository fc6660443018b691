"""bitsandbytes' kernel for 4-bit tables on CPUs with AVX512_BF16, and its layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Avx512Bf16Layout:
    """The weight as bitsandbytes' own kernel for CPUs with AVX512_BF16 wants it, beside the rest of the checkpoint's tensors."""

    @staticmethod
    def state(layer: Any, scales: Tensor, table: Tensor) -> Any:
        from bitsandbytes.functional import QuantState

        shape, block = torch.Size((layer.out_features, layer.in_features)), layer.read_state()["blocksize"]
        kind = layer.config.bnb_4bit_quant_type
        return QuantState(
            absmax=scales, shape=shape, code=table, blocksize=block, quant_type=kind, dtype=torch.bfloat16
        )

    @classmethod
    def pack(cls, layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        from bitsandbytes.functional import _convert_weight_packed_for_cpu

        layer.read_state()
        rest = {name: tensor for name, tensor in stored.items() if name != "weight"}
        state = cls.state(layer, layer.scales(stored), stored["weight.quant_map"])
        packed, state = _convert_weight_packed_for_cpu(stored["weight"].view(torch.uint8), state)
        return {"packed": packed, "block_scales": state.absmax, **rest}

    @classmethod
    def unpack(cls, layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

        rest = {name: held[name.replace(".", "_")] for name in layer.empty_tensors() if name != "weight"}
        state = cls.state(layer, held["block_scales"], rest["weight.quant_map"])
        state.packing_format_for_cpu, state.original_dtype, state.original_nested = True, torch.bfloat16, False
        state.original_qshape = torch.Size((layer.out_features * layer.in_features // 2, 1))
        weight, _ = _convert_weight_packed_for_cpu_inverse(held["packed"], state)
        return {"weight": weight.view(-1).view(layer.config.bnb_4bit_quant_storage)[:, None], **rest}


def avx512_matmul(layer: Any, x: Tensor) -> Tensor:
    """bitsandbytes' kernel: bfloat16 products, sums in float32."""
    shape, block = (layer.out_features, layer.in_features), layer.read_state()["blocksize"]
    rows = x.reshape(-1, x.shape[-1])
    table = layer.weight_quant_map
    y = torch.ops.bitsandbytes.gemv_4bit(rows, layer.packed, shape, layer.block_scales, table, block)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)
