"""What torchao writes about a tensor into a file's header, as JSON: its class, and what that is made with."""

from __future__ import annotations

import json
from typing import Any

from unibody.core.quantization.ao_types import Scheme, enum, values_of


def tensor_header(
    quant_type: dict[str, Any], scheme: Scheme, block_size: list[int], dtype: str, names: list[str]
) -> str:
    """The entry of a weight of this type, in blocks of rows and columns that share a scale; `names` are its parts'."""
    data: dict[str, Any] = {"block_size": block_size, "dtype": enum("torch.dtype", dtype)}
    given, rounded, inputs = values_of(quant_type), None, scheme.inputs != ""
    if scheme.kind == "int8":
        kind, reduced = "Int8Tensor", given.get("reduce_range", False)
        if inputs:
            rounded = {"granularity": plain_entry(given["granularity"]), "reduce_range": reduced}
            rounded |= {"mapping_type": enum("MappingType", scheme.inputs.upper())}
        data |= {"act_quant_kwargs": kwargs_entry("Int8", rounded), "reduce_range": reduced}
    elif scheme.kind == "intx":
        kind, rounded_by = "IntxUnpackedToInt8Tensor", "int8_asym_per_token" if inputs else None
        data |= {"target_dtype": enum("torch.dtype", f"int{scheme.bits}"), "activation_quantization": rounded_by}
    else:
        kind, preference = "Float8Tensor", given.get("kernel_preference", enum("KernelPreference", "AUTO"))
        if inputs:
            rounded = {"float8_dtype": given["activation_dtype"], "granularity": plain_entry(given["granularity"])}
            bounds = {f"hp_value_{end}": given[f"activation_value_{end}"] for end in ("lb", "ub")}
            rounded |= {"mm_config": None, **bounds, "kernel_preference": preference}
        product = plain_entry(given["mm_config"]) if inputs else None
        data |= {"act_quant_kwargs": kwargs_entry("Float8", rounded), "mm_config": product}
        data |= {"kernel_preference": preference}
    return json.dumps({"_type": kind, "_data": data, "_tensor_data_names": names})


def int4_header(tiled: bool, block_size: list[int], shape: list[int]) -> str:
    """The entry of a weight of packed int4."""
    data: dict[str, Any] = {"block_size": block_size, "shape": shape}
    if tiled:
        entry = {"_type": "Int4TilePackedTo4dTensor", "_data": data, "_tensor_data_names": ["qdata", "scale_and_zero"]}
    else:
        data["activation_dtype"] = enum("torch.dtype", "bfloat16")
        entry = {"_type": "Int4Tensor", "_data": data, "_tensor_data_names": ["qdata", "scale", "zero_point"]}
    return json.dumps(entry)


def kwargs_entry(kind: str, rounded: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if rounded is None else {"_type": f"QuantizeTensorTo{kind}Kwargs", "_data": rounded}


def plain_entry(entry: Any) -> dict[str, Any]:
    """An entry, or the first of several, without its version."""
    first = entry[0] if isinstance(entry, list) else entry
    return {key: value for key, value in first.items() if key != "_version"}
