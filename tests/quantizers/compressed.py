"""compressed-tensors for its tests: layers and models of ours, and what the library makes of the same weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from quantizers.files import generated
from torch import Tensor, nn

ct, llama = generated("compressed_tensors"), generated("llama")
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
"""Every size is a multiple of 256, so that blocks of 128 fit without a rest."""
KV = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
FORMATS = {
    **{f"W{bits}A16": "pack-quantized" for bits in range(2, 9)},
    "W4A16_ASYM": "pack-quantized",
    "W4A8": "pack-quantized",
    "W4AFP8": "pack-quantized",
    "W8A8": "int-quantized",
    "FP8": "float-quantized",
    "FP8_DYNAMIC": "float-quantized",
    "FP8_BLOCK": "float-quantized",
    "NVFP4A16": "nvfp4-pack-quantized",
    "NVFP4": "nvfp4-pack-quantized",
    "MXFP4A16": "mxfp4-pack-quantized",
    "MXFP4": "mxfp4-pack-quantized",
    "MXFP6A16": "mxfp6-pack-quantized",
    "MXFP6A8": "mxfp6-pack-quantized",
    "MXFP8": "mxfp8-quantized",
}


def make_layer(weight: Tensor, scheme: Any, bias: Tensor | None = None) -> Any:
    """A layer of a preset's name, or of a whole group."""
    groups = {scheme: ["Linear"]} if isinstance(scheme, str) else {"group": scheme}
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    config = ct.CompressedTensorsConfig(config_groups=groups)
    layer = ct.CompressedTensorsHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    layer.hold(layer.quantize(weight))
    return layer


def their_args(scheme: Any) -> Any:
    return (
        preset_name_to_scheme(scheme, ["Linear"]).weights
        if isinstance(scheme, str)
        else QuantizationArgs(**scheme["weights"])
    )


def their_tensors(weight: Tensor, args: Any) -> dict[str, Tensor]:
    """The library's scales and zero points, not packed yet."""
    (rows, columns), found = weight.shape, {"weight": weight}
    size = args.block_structure or {
        "tensor": (rows, columns), "channel": (1, columns)
    }.get(args.strategy, (1, args.group_size))  # fmt: skip
    blocks = weight.unflatten(1, (-1, size[1])).unflatten(0, (-1, size[0]))
    low, high, options = blocks.amin((1, 3)), blocks.amax((1, 3)), {}
    if args.strategy == "tensor_group":
        options["global_scale"] = found["weight_global_scale"] = generate_gparam(
            weight.min().view(1), weight.max().view(1)
        )
    if args.strategy == "tensor":
        low, high = low.view(1), high.view(1)
    scale, zero = calculate_qparams(low, high, args, **options)
    found["weight_scale"] = scale
    if not args.symmetric:
        found["weight_zero_point"] = zero
    return found


def quantized(plain: Path, scheme: Any, **options: Any) -> Any:
    groups = {scheme: ["Linear"]} if isinstance(scheme, str) else scheme
    config = ct.CompressedTensorsConfig(config_groups=groups, ignore=["lm_head"], **options)
    quantizer = ct.CompressedTensorsHfQuantizer(config, pre_quantized=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)
