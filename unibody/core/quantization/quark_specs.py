"""Quark's configuration of a layer and of a tensor: its keys with the values of Quark's classes, and the scheme that each means."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import Any

from unibody.core.quantization.schemes import QuantizationArgs

DTYPES = {  # bits, kind and first code
    **{f"int{bits}": (bits, "int", -(2 ** (bits - 1))) for bits in (2, 3, 4, 8)},
    **{f"uint{bits}": (bits, "int", 0) for bits in (4, 8)},
    **dict.fromkeys(("fp8_e4m3", "fp8_e5m2"), (8, "float", 0)),
    **dict.fromkeys(("fp6_e2m3", "fp6_e3m2"), (6, "float", 0)),
    "fp4": (4, "float", 0),
}
WEIGHT_SCHEMES = {  # those of weights that Quark packs with these
    "int2": ("per_group",),
    "int3": ("per_group", "per_channel"),
    **dict.fromkeys(("fp8_e4m3", "fp8_e5m2"), ("per_tensor", "per_channel")),
    **dict.fromkeys(("fp4", "fp6_e2m3", "fp6_e3m2"), ("per_group",)),
}
STRATEGIES = {"per_tensor": "tensor", "per_channel": "channel", "per_group": "group"}
SPEC = {  # of weights, inputs or outputs, with the values of Quark's classes where nothing is said
    "block_size": None,
    "ch_axis": None,
    "dtype": "int8",
    "enable_buffer_reuse": False,
    "group_size": None,
    "is_dynamic": False,
    "is_scale_quant": False,
    "max_input_numel": 4194304,
    "mx_element_dtype": None,
    "observer_cls": None,
    "qscheme": "per_tensor",
    "round_method": "half_even",
    "scale_calculation_mode": None,
    "scale_format": None,
    "scale_type": "float",
    "symmetric": None,
    "zero_point_type": "int32",
}
GROUP = {"bias": None, "input_tensors": None, "output_tensors": None, "target_device": None, "weight": None}
ROUNDED = ("weight", "input_tensors", "output_tensors")


def with_all_keys(values: dict[str, Any], usual: dict[str, Any], name: str) -> dict[str, Any]:
    """The values in place of the usual ones; keys that are not known are warned of."""
    if unknown := [f"{key} {values[key]!r}" for key in sorted(values.keys() - usual.keys())]:
        warnings.warn(f"QuarkConfig: {', '.join(unknown)} of {name} changes nothing", stacklevel=2)
    return {**usual, **values}


def whole_layer_config(group: dict[str, Any], name: str) -> dict[str, Any]:
    """How layers are rounded, with all keys, without which Quark does not read it; nothing stays nothing."""
    if not group:
        return group
    found = with_all_keys(group, GROUP, name)
    if found["bias"] is not None or any(isinstance(found[part], list) for part in ROUNDED):
        raise ValueError(
            f"QuarkConfig: no layer here rounds a bias, or in two stages, as {name} says: leave out bias, and lists of specs"
        )
    return found | {part: whole_spec(found[part], part) for part in ROUNDED if found[part] is not None}


def whole_spec(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """How a tensor is rounded, with all keys; scales follow from the least and largest values where nothing is said."""
    found = with_all_keys(spec, SPEC, name)
    kind, scheme = DTYPES.get(found["dtype"], (0, "", 0))[1], found["qscheme"]
    observers = {"per_tensor": "PerTensorMinMax", "per_channel": "PerChannelMinMax", "per_group": "PerGroupMinMax"}
    observer = "PerBlockMX" if kind == "float" and scheme == "per_group" else observers.get(scheme, "Placeholder")
    usual = {
        "ch_axis": {"per_group": -1, "per_channel": 0 if name == "weight" else 1}.get(scheme),
        "observer_cls": f"{observer}Observer",
        "symmetric": None if observer == "PerBlockMX" else True,
    }
    return found | {key: value for key, value in usual.items() if found[key] is None}


def only_read(values: dict[str, Any]) -> list[str]:
    """What a configuration says that is so in its checkpoint, and would not be where weights are quantized here."""
    named = (values[f"{name}_quant_config"].values() for name in ("layer", "layer_type", "kv_cache"))
    groups, found = [group for group in (values["global_quant_config"], *chain(*named)) if group], []
    for spec, part in ((group[part], part) for group in groups for part in ROUNDED if group[part]):
        observer = whole_spec({**spec, "observer_cls": None}, part)["observer_cls"]
        usual = {"observer_cls": (observer,), "scale_type": (None, "float", "float32")}
        found += [f"{key} {spec[key]!r} of {part}" for key, known in usual.items() if spec[key] not in known]
    export = {"kv_cache_group": [], "min_kv_scale": 0, "weight_format": "real_quantized", "weight_merge_groups": None}
    told = {key: values["export"].get(key) for key in export}
    found += [f"{key} {told[key]!r} of export" for key, known in export.items() if told[key] not in (None, known)]
    return [*dict.fromkeys(found), *(f"algo_config {algo.get('name')!r}" for algo in values["algo_config"] or ())]


def read_spec(spec: dict[str, Any], name: str, packed: bool = True) -> QuantizationArgs:
    """How Quark rounds a tensor, in the words of the other toolkits; what no layer here does is refused; `packed`: so are weights."""
    kind, scheme, axis, scales = spec["dtype"], spec["qscheme"], spec["ch_axis"], spec["scale_format"]
    bits, number, _ = DTYPES.get(kind, (0, "", 0))
    weight, small = name == "weight", bits in (4, 6) and number == "float"
    along = {"per_tensor": (None, axis), "per_group": (-1, 1), "per_channel": (0, -2) if weight else (1,)}
    refused = {
        "dtype": kind not in DTYPES,
        "qscheme": scheme not in STRATEGIES
        or (weight and packed and scheme not in WEIGHT_SCHEMES.get(kind, (scheme,))),
        "ch_axis": axis not in along.get(scheme, (axis,)),
        "scale_calculation_mode": spec["scale_calculation_mode"] not in (None, "even", "floor", "ceil"),
        "scale_format": scales not in (("float32", "e8m0") if small else (None, "float32", "e8m0")),
        "scale_type": not weight and spec["is_dynamic"] and spec["scale_type"] in ("float16", "bfloat16"),
        "symmetric": not weight and kind.startswith("uint") and spec["is_dynamic"] and spec["symmetric"],
        "is_dynamic": weight and spec["is_dynamic"],
        "is_scale_quant": spec["is_scale_quant"],
        "mx_element_dtype": spec["mx_element_dtype"],
        "zero_point_type": spec["zero_point_type"] not in (None, "int32"),
    }
    if found := [f"{key} {spec[key]!r}" for key, is_refused in refused.items() if is_refused]:
        raise ValueError(
            f"QuarkConfig: {', '.join(found)} of {name} has no layer here: there are {', '.join(DTYPES)}, {', '.join(STRATEGIES)}, "
            "and scales that are float32, or e8m0 of groups"
        )
    return QuantizationArgs(
        num_bits=bits,
        type=number,
        symmetric=spec["symmetric"] is not False,
        group_size=spec["group_size"],
        strategy="token" if not weight and scheme == "per_channel" else STRATEGIES[scheme],
        dynamic=bool(spec["is_dynamic"]),
        zp_dtype="torch.uint8" if kind.startswith("uint") else None,
        scale_dtype="torch.uint8" if scales == "e8m0" else "torch.float32" if small else None,
        mode=spec["scale_calculation_mode"],
        element=kind.partition("_")[2] or None,
        inverse=number == "int" or None,
    )
