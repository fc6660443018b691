"""compressed-tensors' groups of layers: schemes by name, the keys of a group, and the format that goes with a scheme."""

from __future__ import annotations

import re
from typing import Any

from unibody.core.quantization.config import plain_value
from unibody.core.quantization.schemes import QuantizationArgs

FLOAT8 = {"num_bits": 8, "type": "float"}
NVFP4 = {
    "num_bits": 4,
    "type": "float",
    "strategy": "tensor_group",
    "group_size": 16,
    "scale_dtype": "torch.float8_e4m3fn",
}
MXFP4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
MXFP6, MXFP8 = {**MXFP4, "num_bits": 6}, {**MXFP4, "num_bits": 8}
TOKENS = {"strategy": "token", "dynamic": True}
PRESETS: dict[str, tuple[Any, Any]] = {
    "W4A16_ASYM": ({"num_bits": 4, "strategy": "group", "group_size": 128, "symmetric": False}, None),
    "W8A8": ({"strategy": "channel"}, TOKENS),
    "INT8": ({"strategy": "channel"}, TOKENS),
    "W4AFP8": ({"num_bits": 4, "strategy": "group", "group_size": 128}, {**FLOAT8, **TOKENS}),
    "FP8": ({**FLOAT8, "strategy": "tensor"}, {**FLOAT8, "strategy": "tensor", "observer": "static_minmax"}),
    "FP8_DYNAMIC": ({**FLOAT8, "strategy": "channel"}, {**FLOAT8, **TOKENS}),
    "FP8_BLOCK": (
        {**FLOAT8, "strategy": "block", "block_structure": [128, 128]},
        {**FLOAT8, "strategy": "group", "group_size": 128, "dynamic": True},
    ),
    "NVFP4A16": (NVFP4, None),
    "NVFP4": (NVFP4, {**NVFP4, "dynamic": "local", "observer": "static_minmax"}),
    "MXFP4A16": (MXFP4, None),
    "MXFP4": (MXFP4, {**MXFP4, "dynamic": True}),
    "MXFP6A16": (MXFP6, None),
    "MXFP6A8": (MXFP6, {**MXFP8, "dynamic": True}),
    "MXFP8A16": (MXFP8, None),
    "MXFP8": (MXFP8, {**MXFP8, "dynamic": True}),
}


def preset(name: str) -> tuple[Any, Any]:
    """Weights and inputs of a named scheme: those in PRESETS, `W<bits>A<bits>` for groups of 128, and `UNQUANTIZED`."""
    if (sizes := re.fullmatch(r"W([2-8])A(16|8|4)", name)) and name not in PRESETS:
        inputs = None if sizes[2] == "16" else {"num_bits": int(sizes[2]), **TOKENS}
        return {"num_bits": int(sizes[1]), "strategy": "group", "group_size": 128}, inputs
    if name != "UNQUANTIZED" and name not in PRESETS:
        raise ValueError(
            f"CompressedTensorsConfig: no scheme is called {name!r}: there are {', '.join(PRESETS)}, W4A16, …"
        )
    return PRESETS.get(name, (None, None))


def usual_format(weights: QuantizationArgs, inputs: QuantizationArgs | None) -> str:
    """The format that the library gives to weights that are rounded so."""
    if weights.type == "int":
        return "int-quantized" if weights.num_bits == 8 and inputs is not None else "pack-quantized"
    if weights.num_bits == 4:
        return "nvfp4-pack-quantized" if weights.strategy == "tensor_group" else "mxfp4-pack-quantized"
    if weights.num_bits == 6:
        return "mxfp6-pack-quantized"
    return "mxfp8-quantized" if weights.scale_dtype else "float-quantized"


def whole_group(name: str, group: Any) -> dict[str, Any]:
    """A group with all its keys; a list of targets is that of the scheme which the group is named after."""
    if isinstance(group, (list, tuple)):
        weights, inputs = preset(name)
        group = {"targets": list(group), "weights": weights, "input_activations": inputs}
    elif not isinstance(group, dict):
        group = group.model_dump()  # the library's own object
    found: dict[str, Any] = {"targets": list(group["targets"])}
    for key in ("weights", "input_activations", "output_activations"):
        given = group.get(key)
        args = None if given is None else QuantizationArgs(**plain_args(given))
        if args is not None and args.strategy == "attn_head":
            raise ValueError(
                f"CompressedTensorsConfig: {key} of {name} are of layers: 'attn_head' is of kv_cache_scheme"
            )
        found[key] = None if args is None else args.to_dict()
    return {**found, "format": group.get("format")}


def cache_args(given: Any) -> QuantizationArgs:
    """How keys and values are rounded, of a dictionary or the library's object."""
    if not isinstance(given, dict) and not hasattr(given, "model_dump"):
        expected = "a dictionary or the library's QuantizationArgs"
        raise TypeError(f"CompressedTensorsConfig: kv_cache_scheme is {given!r}, expected {expected}")
    args = QuantizationArgs(**plain_args(given))
    if not args.dynamic and args.strategy not in ("tensor", "attn_head"):
        raise ValueError(
            f"CompressedTensorsConfig: kv_cache_scheme has the strategy {args.strategy!r} and is not dynamic: scales that "
            "are stored are of 'tensor' or 'attn_head'"
        )
    return args


def plain_args(given: Any) -> dict[str, Any]:
    """The arguments of QuantizationArgs as JSON has them; those of the library's object too."""
    values = given if isinstance(given, dict) else given.model_dump()
    return {key: plain_value(value) for key, value in values.items()}
