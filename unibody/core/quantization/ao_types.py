"""torchao's `quant_type` as JSON: its classes with their values, the names that stood for them, and the scheme of each."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, NamedTuple, NoReturn


def enum(kind: str, name: str) -> dict[str, str]:
    return {"_type": kind, "_data": name}


ROW = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
TENSOR: dict[str, Any] = {"_type": "PerTensor", "_version": 1, "_data": {}}
AXIS = {"_type": "PerAxis", "_version": 1, "_data": {"axis": 0}}
SYMMETRIC, ASYMMETRIC = enum("MappingType", "SYMMETRIC"), enum("MappingType", "ASYMMETRIC")
FAST = {"emulate": False, "use_fast_accum": True, "pad_inner_dim": False}
INTX = {
    "intx_packing_format": enum("IntxPackingFormat", "UNPACKED_TO_INT8"),
    "intx_choose_qparams_algorithm": enum("IntxChooseQParamsAlgorithm", "AFFINE"),
}
TYPES: dict[str, dict[str, Any]] = {  # with the values of torchao's classes where nothing is said
    "Int8WeightOnlyConfig": {"group_size": None, "granularity": ROW, "set_inductor_config": True},
    "Int8DynamicActivationInt8WeightConfig": {
        "act_mapping_type": SYMMETRIC,
        "weight_only_decode": False,  # changes nothing, in torchao neither
        "granularity": ROW,
        "set_inductor_config": True,
        "reduce_range": False,
    },
    "IntxWeightOnlyConfig": {
        "weight_dtype": enum("torch.dtype", "int8"),
        "granularity": AXIS,
        "mapping_type": SYMMETRIC,
        "scale_dtype": None,
        **INTX,
    },
    "Int8DynamicActivationIntxWeightConfig": {
        "weight_dtype": enum("torch.dtype", "int8"),
        "weight_granularity": {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}},
        "weight_mapping_type": SYMMETRIC,
        "weight_scale_dtype": None,
        "act_mapping_type": ASYMMETRIC,
        **INTX,
    },
    "Int4WeightOnlyConfig": {
        "group_size": 128,
        "set_inductor_config": True,
        "int4_packing_format": enum("Int4PackingFormat", "PLAIN"),
        "int4_choose_qparams_algorithm": enum("Int4ChooseQParamsAlgorithm", "TINYGEMM"),
        "int4_tile_packed_ntile": 8,
    },
    "Float8WeightOnlyConfig": {
        "weight_dtype": enum("torch.dtype", "float8_e4m3fn"),
        "set_inductor_config": True,
        "granularity": ROW,
    },
    "Float8DynamicActivationFloat8WeightConfig": {
        "activation_dtype": enum("torch.dtype", "float8_e4m3fn"),
        "weight_dtype": enum("torch.dtype", "float8_e4m3fn"),
        "granularity": [TENSOR, TENSOR],  # of inputs and weights
        "packing_format": enum("Float8PackingFormat", "PLAIN"),
        "mm_config": {"_type": "Float8MMConfig", "_version": 1, "_data": FAST},
        "activation_value_lb": None,
        "activation_value_ub": None,
        "kernel_preference": enum("KernelPreference", "AUTO"),
        "set_inductor_config": True,
        "alg_id": 0,
    },
}
NAMES = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int4_weight_only": "Int4WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "intx_weight_only": "IntxWeightOnlyConfig",
    "int8_dynamic_activation_intx_weight": "Int8DynamicActivationIntxWeightConfig",
    "int8_dynamic_activation_int4_weight": "Int8DynamicActivationIntxWeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8_dynamic_activation_float8_weight": "Float8DynamicActivationFloat8WeightConfig",
}
MAPS = ("FqnToConfig", "ModuleFqnToConfig")  # types for layers by their names
INTEGERS, FLOATS = tuple(f"int{bits}" for bits in range(2, 9)), ("float8_e4m3fn", "float8_e5m2")
MAPPINGS, SCALES = ("SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR", "ASYMMETRIC"), (None, "float32", "float16", "bfloat16")
CHOICES: dict[str, tuple[Any, ...]] = {  # values of which there is a layer here; other fields take any
    "act_mapping_type": ("SYMMETRIC", "ASYMMETRIC"),
    "reduce_range": (False, True),
    "mapping_type": MAPPINGS,
    "weight_mapping_type": MAPPINGS,
    "scale_dtype": SCALES,
    "weight_scale_dtype": SCALES,
    "intx_packing_format": ("UNPACKED_TO_INT8",),
    "intx_choose_qparams_algorithm": ("AFFINE", "HQQ_SCALE_ONLY"),
    "int4_packing_format": ("PLAIN", "TILE_PACKED_TO_4D"),
    "int4_choose_qparams_algorithm": ("TINYGEMM", "HQQ"),
    "int4_tile_packed_ntile": (8,),
    "activation_dtype": FLOATS,
    "packing_format": ("PLAIN",),
}
REASONS = {
    "PLAIN_INT32": " (operators of XPUs and NPUs make it)",
    "PRESHUFFLED": " (torchao itself has no file of it)",
    "Static": "; its scales are tensors, which no config.json holds: round inputs dynamically",
}


class Scheme(NamedTuple):
    """How a layer's weight and inputs are rounded."""

    kind: str  # "int8", "intx", "float8", or packed: "int4_pairs", "int4_tiles"
    bits: int
    group_size: int  # columns that share a scale; 0: all
    symmetric: bool
    inputs: str = ""  # or "symmetric", "asymmetric", "float8"
    whole: bool = False  # whether all rows of the weight share a scale
    whole_inputs: bool = False  # whether all tokens do
    fit: str = ""  # of symmetric intx: "unclipped", for both ends of the range; "fitted", for the least error
    scale_type: str = ""  # of intx; empty: the weight's


def written(value: Any) -> str:
    """A value of the JSON as torchao prints it: `PerGroup(group_size=32)`, `SYMMETRIC`."""
    if isinstance(value, list):
        return " and ".join(map(written, value))
    data = value.get("_data") or {} if isinstance(value, dict) else value
    if not isinstance(data, dict):
        return str(data)
    return f"{value.get('_type')}({', '.join(f'{key}={entry!r}' for key, entry in data.items())})"


def member(value: Any) -> str:
    """The same in capitals: users also write members of enumerations as words."""
    return written(value).upper()


def refuse(name: str, field: str, value: Any, expected: str) -> NoReturn:
    reason = REASONS.get(member(value), "")
    raise ValueError(f"TorchAoConfig: {field} of {name} is {written(value)}{reason}, expected {expected}")


def values_of(quant_type: dict[str, Any]) -> dict[str, Any]:
    """The values of a type's fields: torchao's own where there is None."""
    usual = TYPES[quant_type["_type"]]
    return {key: usual.get(key) if value is None else value for key, value in quant_type["_data"].items()}


def read_scheme(quant_type: dict[str, Any]) -> Scheme:
    """The scheme of a type; what no layer here does is refused."""
    name, data = quant_type["_type"], values_of(quant_type)
    check_values(name, data)
    values = {key: member(value) for key, value in data.items()}
    if name == "Int4WeightOnlyConfig":
        kind = "int4_pairs" if values["int4_packing_format"] == "PLAIN" else "int4_tiles"
        return Scheme(kind, 4, data["group_size"], False)
    inputs, weight, size = read_granularities(name, data)
    whole, is_dynamic = (weight == "PerTensor()", inputs == "PerTensor()"), "Dynamic" in name
    if name.startswith("Float8"):
        return Scheme("float8", 8, size, True, "float8" if is_dynamic else "", *whole)
    rounded = values["act_mapping_type"].lower() if is_dynamic else ""
    if "Intx" not in name:
        return Scheme("int8", 7 if data.get("reduce_range") else 8, size, True, rounded, *whole)
    prefix, bits = "weight_" if is_dynamic else "", int(values["weight_dtype"].removeprefix("INT"))
    mapping, scale_type = values[f"{prefix}mapping_type"], data[f"{prefix}scale_dtype"]
    is_fitted = values["intx_choose_qparams_algorithm"] == "HQQ_SCALE_ONLY"  # symmetric, whatever the mapping
    fit = "fitted" if is_fitted else "unclipped" if mapping.endswith("ERR") else ""
    is_symmetric = is_fitted or mapping != "ASYMMETRIC"
    return Scheme("intx", bits, size, is_symmetric, rounded, fit=fit, scale_type=written(scale_type or ""))


def check_values(name: str, data: dict[str, Any]) -> None:
    """Refuses fields that the class does not have, and values of which there is no layer here."""
    choices = {**CHOICES, "weight_dtype": FLOATS if name.startswith("Float8") else INTEGERS}
    if name == "Int8DynamicActivationIntxWeightConfig":
        choices["act_mapping_type"] = ("ASYMMETRIC",)
    for key, value in data.items():
        if key not in TYPES[name]:
            raise ValueError(f"TorchAoConfig: {name} has no {key}: there are {', '.join(TYPES[name])}")
        known = choices.get(key, (value,))
        if member(value) not in map(member, known):
            refuse(name, key, value, " or ".join(map(str, known)))
        if key.startswith("activation_value") and not isinstance(value, (int, float, type(None))):
            refuse(name, key, value, "a number or None")
    if name == "Int8WeightOnlyConfig" and data["group_size"] is not None:
        refuse(name, "group_size", data["group_size"], f"None: granularity PerGroup({data['group_size']}) says it")
    if name == "Int4WeightOnlyConfig":
        if type(size := data["group_size"]) is not int or size < 1:
            refuse(name, "group_size", size, "a positive number")
        if (member(data["int4_choose_qparams_algorithm"]), member(data["int4_packing_format"])) == ("HQQ", "PLAIN"):
            refuse(name, "int4_packing_format", "PLAIN", "TILE_PACKED_TO_4D, with which the algorithm HQQ goes")


def read_granularities(name: str, data: dict[str, Any]) -> tuple[str, str, int]:
    """The granularities of inputs and weight, and the columns of a group; 0: all."""
    key = "weight_granularity" if "weight_granularity" in data else "granularity"
    found = data[key]
    inputs, weight = map(written, found if isinstance(found, list) and len(found) == 2 else [found, found])
    known = ["PerAxis(axis=0)"] if "Intx" in name else ["PerRow(dim=-1)", "PerTensor()"]
    has_groups = "Intx" in name or "WeightOnly" in name
    groups = re.fullmatch(r"PerGroup\(group_size=([1-9]\d*)\)", weight) if has_groups else None
    is_mixed = inputs != weight and not name.startswith("Int8Dynamic")
    if is_mixed or not (groups or {inputs, weight} <= {*known}):
        refuse(name, key, found, " or ".join([*known, "PerGroup"] if has_groups else known))
    return inputs, weight, int(groups[1]) if groups else 0


def types_by_name(quant_type: dict[str, Any]) -> dict[str, Any]:
    """The entries of a map."""
    data = quant_type.get("_data") or {}
    return data.get("fqn_to_config") or data.get("module_fqn_to_config") or {}


def require_layer(kind: Any) -> None:
    """Refuses classes that are not named above."""
    if kind not in (*TYPES, *MAPS):
        reason = REASONS["Static"] if "Static" in str(kind) else ""
        raise ValueError(f"TorchAoConfig: quant_type {kind!r} has no layer here{reason}: there are {', '.join(TYPES)}")


def whole_type(given: Any, options: dict[str, Any]) -> dict[str, Any]:
    """A type as JSON has it, of that, of a name with options, or of an object of torchao's."""
    if isinstance(given, dict) and given.keys() == {"default"}:
        given = given["default"]
    if isinstance(given, str):
        return named_type(given, options)
    if options:
        raise ValueError(f"TorchAoConfig: {', '.join(options)} go with a name for quant_type, not with a whole type")
    if not isinstance(given, dict):
        entries = (getattr(given, "fqn_to_config", None) or {}).values()
        for entry in (given, *(entry for entry in entries if entry is not None)):
            require_layer(type(entry).__name__)
        given = import_module("torchao.core.config").config_to_dict(given)  # the object's own package
    name = given.get("_type", given)
    require_layer(name)
    if name in MAPS:
        for key, entry in types_by_name(given).items():
            if entry is not None and whole_type(entry, {})["_type"] in MAPS:
                refuse(name, key, entry, "a type, not a map")
        return dict(given)
    if (version := given.get("_version", 2)) != 2:
        refuse(name, "_version", version, "2: quantize the plain weights again")
    if not isinstance(data := given.get("_data", {}), dict):
        refuse(name, "_data", data, "a dictionary")
    return checked(name, {**TYPES[name], **data})


def named_type(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The type that a name with options stands for."""
    if name not in NAMES:
        raise ValueError(f"TorchAoConfig: quant_type {name!r} is not known: there are {', '.join(NAMES)}")
    data = dict(TYPES[NAMES[name]])
    if name.endswith("int4_weight"):
        data["weight_dtype"] = enum("torch.dtype", "int4")
    for option, value in options.items():
        usual = "granularity" if option == "group_size" else option
        key = next((key for key in (f"weight_{usual}", usual, option) if key in data), None)
        if key is None:
            raise ValueError(f"TorchAoConfig: {name} takes no {option}")
        entries = {
            "weight_dtype": enum("torch.dtype", str(value).removeprefix("torch.")),
            "mapping_type": enum("MappingType", str(getattr(value, "name", value)).upper()),
            "group_size": {"_type": "PerGroup", "_version": 1, "_data": {"group_size": value}},
        }
        data[key] = value if key == "group_size" else entries[option]
    return checked(NAMES[name], data)


def checked(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """The type of these values; what no layer here does is refused."""
    quant_type = {"_type": name, "_version": 2, "_data": data}
    read_scheme(quant_type)
    return quant_type
