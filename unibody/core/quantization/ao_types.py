"""torchao's `quant_type` as JSON: its classes with their values, the names that stood for them, and the scheme of each."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


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
        "weight_only_decode": False,
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


def member(value: Any) -> Any:
    """The name in capitals of what JSON has as an entry of an enumeration, and users also write as a word; others as they are."""
    name = value["_data"] if isinstance(value, dict) else value
    return name.upper() if isinstance(name, str) else value


class Scheme(NamedTuple):
    """How a layer's weight and inputs are rounded."""

    kind: str  # "int8", "intx", "float8", or packed: "int4_pairs", "int4_tiles"
    bits: int
    group_size: int  # columns that share a scale; 0: all
    symmetric: bool
    inputs: str  # "", "symmetric", "asymmetric" or "float8"
    whole: bool = False  # whether all rows share a scale, those of inputs too
    fit: str = ""  # of symmetric intx: "unclipped", for both ends of the range; "fitted", for the least error
    scale_type: str | None = None  # of intx; None: the weight's


def read_scheme(quant_type: dict[str, Any]) -> Scheme:
    """The scheme of a type; what no kernel here does is refused."""
    name, data = quant_type["_type"], quant_type["_data"]
    if name == "Int4WeightOnlyConfig":
        return read_int4(data)
    granularity = data.get("weight_granularity", data.get("granularity", ROW))
    pair = granularity if isinstance(granularity, list) else [granularity]  # of inputs and weights
    granularity = pair[-1]
    known = ("PerRow", "PerTensor") if name.startswith("Float8Dynamic") else ("PerRow", "PerAxis", "PerGroup")
    if pair[0]["_type"] != granularity["_type"] or granularity["_type"] not in known:
        shown = " and ".join(dict.fromkeys(entry["_type"] for entry in pair))
        raise ValueError(f"TorchAoConfig: granularity of {name} is {shown}, expected {known[0]} or {known[-1]}")
    told = granularity["_data"].get("group_size") or data.get("group_size") or 0
    accepted = {
        "act_mapping_type": ASYMMETRIC if name == "Int8DynamicActivationIntxWeightConfig" else SYMMETRIC,
        "weight_only_decode": False,
        "reduce_range": False,
        "activation_value_lb": None,
        "activation_value_ub": None,
        "packing_format": enum("Float8PackingFormat", "PLAIN"),
        **INTX,
    }
    if name.startswith("Float8"):
        accepted |= {key: enum("torch.dtype", "float8_e4m3fn") for key in ("activation_dtype", "weight_dtype")}
    fitted = member(data.get("intx_choose_qparams_algorithm")) == "HQQ_SCALE_ONLY"
    if fitted:
        del accepted["intx_choose_qparams_algorithm"]
    for key in accepted.keys() & data.keys():
        if member(data[key]) != member(accepted[key]):
            raise ValueError(f"TorchAoConfig: {key} of {name} is {data[key]!r}, expected {accepted[key]!r}")
    if name == "Float8WeightOnlyConfig":
        return Scheme("float8", 8, 0, True, "")
    if name == "Float8DynamicActivationFloat8WeightConfig":
        return Scheme("float8", 8, 0, True, "float8", granularity["_type"] == "PerTensor")
    if name.startswith("Int8") and not name.endswith("IntxWeightConfig"):
        return Scheme("int8", 8, told, True, "symmetric" if "Dynamic" in name else "")
    bits = int(data["weight_dtype"]["_data"].removeprefix("int"))
    mapping = member(data.get("weight_mapping_type", data.get("mapping_type")))
    if not 2 <= bits <= 8 or mapping not in ("SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR", "ASYMMETRIC"):
        raise ValueError(f"TorchAoConfig: {name} is for int2 to int8, symmetric or not: found {data}")
    fit = "fitted" if fitted else "unclipped" if mapping.endswith("ERR") else ""
    scale_type = data.get("weight_scale_dtype", data.get("scale_dtype"))
    inputs = "asymmetric" if "Dynamic" in name else ""
    return Scheme(
        "intx", bits, told, mapping != "ASYMMETRIC", inputs, fit=fit, scale_type=scale_type and scale_type["_data"]
    )


def read_int4(data: dict[str, Any]) -> Scheme:
    """The scheme of packed int4; packings of which no layer here can be compared with torchao's are refused."""
    packing, tile = member(data["int4_packing_format"]), data["int4_tile_packed_ntile"]
    others = {
        "PLAIN_INT32": "operators of XPUs and NPUs make it",
        "PRESHUFFLED": "torchao itself has no file of it",
    }
    if packing not in ("PLAIN", "TILE_PACKED_TO_4D") or tile != 8:
        reason = others.get(packing, f"with an int4_tile_packed_ntile of {tile}")
        raise ValueError(
            f"TorchAoConfig: no layer here has the int4_packing_format {packing} ({reason}): expected PLAIN or "
            "TILE_PACKED_TO_4D, in tiles of 8"
        )
    if packing == "PLAIN" and member(data["int4_choose_qparams_algorithm"]) == "HQQ":
        raise ValueError(
            "TorchAoConfig: int4_choose_qparams_algorithm HQQ goes with the int4_packing_format TILE_PACKED_TO_4D"
        )
    return Scheme("int4_pairs" if packing == "PLAIN" else "int4_tiles", 4, data["group_size"], False, "")


def whole_type(given: Any, options: dict[str, Any]) -> dict[str, Any]:
    """A type as JSON has it, of that, of a name with options, or of an object of torchao's."""
    if not isinstance(given, (str, dict)):
        given = import_module("torchao.core.config").config_to_dict(given)  # the object's own package
    if isinstance(given, dict):
        given = given.get("default", given)
        if options:
            raise ValueError(
                f"TorchAoConfig: {', '.join(options)} go with a name for quant_type, not with a whole type"
            )
        if given.get("_type") in MAPS:
            return given  # its entries are checked when a layer asks for its own
        if given.get("_type") not in TYPES:
            raise ValueError(
                f"TorchAoConfig: quant_type {given.get('_type')!r} has no layer here: there are {', '.join(TYPES)}"
            )
        found = {"_type": given["_type"], "_version": given.get("_version", 2)}
        return {**found, "_data": {**TYPES[given["_type"]], **given.get("_data", {})}}
    if given not in NAMES:
        raise ValueError(f"TorchAoConfig: quant_type {given!r} is not known: there are {', '.join(NAMES)}")
    data = dict(TYPES[NAMES[given]])
    if given.endswith("int4_weight"):
        data["weight_dtype"] = enum("torch.dtype", "int4")
    keys = {"weight_dtype": "weight_dtype", "mapping_type": "mapping_type", "group_size": "granularity"}
    for name, value in options.items():
        key = next((key for key in (f"weight_{keys[name]}", keys[name], name) if key in data), None)
        if key is None:
            raise ValueError(f"TorchAoConfig: {given} takes no {name}")
        data[key] = (
            value
            if key == "group_size"
            else {
                "group_size": lambda v: {"_type": "PerGroup", "_version": 1, "_data": {"group_size": v}},
                "weight_dtype": lambda v: enum("torch.dtype", str(v).removeprefix("torch.")),
                "mapping_type": lambda v: enum("MappingType", str(getattr(v, "name", v)).upper()),
            }[name](value)
        )
    return {"_type": NAMES[given], "_version": 2, "_data": data}
