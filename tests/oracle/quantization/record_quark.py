"""Records `quark/llama-SCHEME`: checkpoints that Quark exported, the weights they were made of, and the logits of its frozen models.

A frozen model rounds weights and inputs in floating point, as its checkpoint's reader has to. There is one row of tokens: inputs
with a scale for each token (`ch_axis` 1) are rounded with one for each position there, whatever the row.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from quark.torch import ModelQuantizer, export_safetensors
from quark.torch.quantization.config import config as specs

from oracle.quantization import fixtures, inputs


def spec(name: str, **options: Any) -> Any:
    return getattr(specs, name)(**options).to_quantization_spec()


INT8 = {"observer_method": "min_max", "symmetric": True}
SCHEMES: dict[str, tuple[Any, Any]] = {
    "int4": (spec("Int4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "uint4": (spec("Uint4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "int8": (spec("Int8PerChannelSpec", ch_axis=0, symmetric=False), None),
    "int8-static": (spec("Int8PerTensorSpec", **INT8), spec("Int8PerTensorSpec", **INT8)),
    "fp8-static": (spec("FP8E4M3PerTensorSpec"), spec("FP8E4M3PerTensorSpec")),
    "fp8-tokens": (
        spec("FP8E4M3PerChannelSpec", ch_axis=0),
        spec("FP8E4M3PerChannelSpec", ch_axis=1, is_dynamic=True),
    ),
    "mxfp4": (spec("OCP_MXFP4Spec", ch_axis=-1, is_dynamic=False), spec("OCP_MXFP4Spec", ch_axis=-1)),
    "mxfp6-e2m3": (spec("OCP_MXFP6E2M3Spec", ch_axis=-1, is_dynamic=False), spec("OCP_MXFP6E2M3Spec", ch_axis=-1)),
    "mxfp6-e3m2": (spec("OCP_MXFP6E3M2Spec", ch_axis=-1, is_dynamic=False), spec("OCP_MXFP6E3M2Spec", ch_axis=-1)),
    "int4-rows": (spec("Int4PerChannelSpec", ch_axis=0), None),
    "uint8-rows": (spec("Uint8PerChannelSpec", ch_axis=0, symmetric=False), None),
    "int8-groups": (spec("Int8PerGroupSpec", ch_axis=-1, group_size=32), None),
    "int8-outputs": (spec("Int8PerTensorSpec", **INT8), None),
    "fp8-outputs": (spec("FP8E4M3PerTensorSpec"), spec("FP8E4M3PerTensorSpec")),
    "int2": (spec("Int2PerGroupSpec", ch_axis=-1, group_size=32), None),
    "int3": (spec("Int3PerGroupSpec", ch_axis=-1, group_size=8), None),
    "int3-rows": (spec("Int3PerChannelSpec", ch_axis=0), None),
    "int4-order": (spec("Int4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "int4-tensor": (spec("Int4PerTensorSpec", **INT8), None),
    "uint8-tensor": (spec("Uint8PerTensorSpec", **INT8 | {"symmetric": False}), None),
    "int4-tokens": (
        spec("Int4PerChannelSpec", ch_axis=0),
        spec("Int8PerChannelSpec", ch_axis=1, is_dynamic=True, symmetric=True),
    ),
    "int8-tokens": (
        spec("Int8PerChannelSpec", ch_axis=0, symmetric=True),
        spec("Int8PerChannelSpec", ch_axis=1, is_dynamic=True, symmetric=False),
    ),
    "uint8-static": (
        spec("Int8PerTensorSpec", **INT8),
        spec("Uint8PerTensorSpec", **INT8 | {"symmetric": False}),
    ),
    "fp8-dynamic": (spec("FP8E4M3PerTensorSpec"), spec("FP8E4M3PerTensorSpec", is_dynamic=True)),
    "e5m2-static": (spec("FP8E5M2PerTensorSpec"), spec("FP8E5M2PerTensorSpec")),
    "e5m2-tokens": (
        spec("FP8E5M2PerChannelSpec", ch_axis=0),
        spec("FP8E5M2PerChannelSpec", ch_axis=1, is_dynamic=True),
    ),
    "mxfp4-mxfp8": (spec("OCP_MXFP4Spec", ch_axis=-1, is_dynamic=False), spec("OCP_MXFP8E4M3Spec", ch_axis=-1)),
    "kv-fp8": (spec("Uint4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "kv-post-rope": (spec("Uint4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "kv-int8": (spec("Int8PerTensorSpec", **INT8), None),
    "fp4-floats": (
        spec("FP4PerGroupSpec", ch_axis=-1, group_size=16, is_dynamic=False),
        spec("FP6E3M2PerGroupSpec", ch_axis=-1, group_size=32),
    ),
    "mxfp4-ceil": (
        spec("OCP_MXFP4Spec", ch_axis=-1, is_dynamic=False, scale_calculation_mode="ceil"),
        spec("OCP_MXFP4Spec", ch_axis=-1, scale_calculation_mode="floor"),
    ),
    "uint4-inputs": (
        spec("Int8PerChannelSpec", ch_axis=0, symmetric=True),
        spec("Uint4PerTensorSpec", **INT8 | {"symmetric": False}),
    ),
    "inputs-alone": (None, spec("FP8E4M3PerTensorSpec")),
    "mxfp8-fake": (
        spec("OCP_MXFP8E4M3Spec", ch_axis=-1, is_dynamic=False),
        spec("OCP_MXFP8E4M3Spec", ch_axis=-1),
    ),
    "kv-excluded": (spec("Uint4PerGroupSpec", ch_axis=-1, group_size=32), None),
    "rotated": (spec("OCP_MXFP4Spec", ch_axis=-1, is_dynamic=False), spec("OCP_MXFP4Spec", ch_axis=-1)),
}
OUTPUTS = {
    "int8-outputs": spec("Int8PerTensorSpec", observer_method="min_max", symmetric=False),
    "fp8-outputs": spec("FP8E4M3PerTensorSpec"),
}
CACHE = {  # what keys and values are rounded to, each with a scale of its own
    "kv-fp8": spec("FP8E4M3PerTensorSpec"),
    "kv-post-rope": spec("FP8E4M3PerTensorSpec"),
    "kv-int8": spec("Int8PerTensorSpec", **INT8),
    "kv-excluded": spec("FP8E4M3PerTensorSpec"),
}
ATTENTION = [f"model.layers.layer_id.self_attn.{letter}_proj" for letter in "qkv"]
MLP = [f"model.layers.layer_id.mlp.{name}_proj" for name in ("gate", "up")]
ROTATION = specs.RotationConfig(  # what comes before a norm, the norm, and what comes after it; inputs of down_proj as they come
    scaling_layers={
        "first_layer": [
            {
                "prev_modules": ["model.embed_tokens"],
                "norm_module": "model.layers.layer_id.input_layernorm",
                "next_modules": ATTENTION,
            },
            {
                "prev_modules": ["model.layers.layer_id.self_attn.o_proj"],
                "norm_module": "model.layers.layer_id.post_attention_layernorm",
                "next_modules": MLP,
            },
        ],
        "middle_layers": [],
        "last_layer": [
            {
                "prev_modules": ["model.layers.layer_id.mlp.down_proj"],
                "norm_module": "model.norm",
                "next_modules": ["lm_head"],
            }
        ],
    },
    r4=True,
)


@torch.no_grad()
def record(name: str) -> None:
    weight, tokens = SCHEMES[name]
    ids, samples = inputs.token_ids(1, 9), inputs.token_ids(2, 16, seed=50)
    group = specs.QLayerConfig(weight=weight, input_tensors=tokens, output_tensors=OUTPUTS.get(name))
    cached = specs.QLayerConfig(weight=weight, input_tensors=tokens, output_tensors=CACHE.get(name))
    config = specs.QConfig(
        global_quant_config=group,
        kv_cache_quant_config={"*k_proj": cached, "*v_proj": cached} if name in CACHE else {},
        kv_cache_post_rope=name == "kv-post-rope",
        exclude=["lm_head", "*self_attn*"] if name == "kv-excluded" else ["lm_head"],
        algo_config=[ROTATION] if name == "rotated" else None,
    )
    quantizer = ModelQuantizer(config)
    model = inputs.llama(num_hidden_layers=1, **{"intermediate_size": 96} if name == "rotated" else {})
    weights = {f"weight/{key}": layer.weight.detach().clone() for key, layer in inputs.linears(model).items()}
    model = quantizer.freeze(quantizer.quantize_model(model, [samples]))
    logits = model(ids).logits
    folder = fixtures.FOLDER / f"quark/llama-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        export_safetensors(
            model,
            scratch,
            weight_format="fake_quantized" if name.endswith("fake") else "real_quantized",
            pack_method="order" if name.endswith("order") else "reorder",
        )
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((Path(scratch) / file).read_bytes())
    values = {"ids": ids, "logits": logits, **(weights if name == "int4" else {})}  # they are the same for all
    fixtures.save(f"quark/llama-{name}/values", __file__, values)


if __name__ == "__main__":
    inputs.seed_all()
    for scheme in sys.argv[1:] or SCHEMES:
        record(scheme)
