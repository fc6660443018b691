"""A tiny library Llama, plain or packed by any method, whose weights are of unit scale so that adapters count."""

from __future__ import annotations

from typing import Any

import torch

import unibody
from unibody.core.quantization.replacement import linears_to_convert, output_modules, set_module

QUARK = {"weight": {"dtype": "uint4", "qscheme": "per_group", "group_size": 64, "symmetric": False}}
CONFIGS: dict[str, Any] = {
    "llm_int8": lambda: unibody.BitsAndBytesConfig(load_in_8bit=True),
    "nf4": lambda: unibody.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    ),
    "fp4": lambda: unibody.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16),
    "gptq": lambda: unibody.GPTQConfig(bits=4, group_size=64),
    "awq": lambda: unibody.AwqConfig(group_size=64),
    "hqq": lambda: unibody.HqqConfig(group_size=64),
    "quanto": lambda: unibody.QuantoConfig(weights="int4"),
    "fp8": lambda: unibody.FineGrainedFP8Config(),
    "fbgemm_fp8": lambda: unibody.FbgemmFp8Config(),
    "eetq": lambda: unibody.EetqConfig(),
    "torchao": lambda: unibody.TorchAoConfig("int8_dynamic_activation_int4_weight"),
    "quark": lambda: unibody.QuarkConfig(global_quant_config=QUARK, exclude=["lm_head"]),
    "compressed-tensors": lambda: unibody.CompressedTensorsConfig(
        config_groups={"W4A16": ["Linear"]}, ignore=["lm_head"]
    ),
    "auto-round": lambda: unibody.AutoRoundConfig(group_size=64),
    "bitnet": lambda: unibody.BitNetQuantConfig(),
}


def plain_model() -> Any:
    torch.manual_seed(0)
    config = unibody.LlamaConfig(
        vocab_size=128, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, initializer_range=0.1,
    )  # fmt: skip
    return unibody.LlamaForCausalLM(config).eval()


def packed_model(method: str) -> Any:
    """Its linear layers but the head packed, each rounded to nearest."""
    model = plain_model()
    quantizer = unibody.AutoHfQuantizer.from_config(CONFIGS[method](), pre_quantized=False)
    for name, linear in linears_to_convert(model, output_modules(model)).items():
        layer = quantizer.make_linear(name, linear)
        layer.hold(layer.quantize(linear.weight.detach()))
        set_module(model, name, layer)
    quantizer.pre_quantized = True  # from now on: nothing is left to calibrate
    quantizer.postprocess_model(model)
    return model
