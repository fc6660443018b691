"""Quark: the export format of AMD's toolkit (quark.docs.amd.com).

| weights | tensors |
|---|---|
| `int4`, `uint4` by group | `weight` int32 [K, N / 8]: eight outputs in a word, the even ones first; `weight_scale` [K / g, N]; |
| | `weight_zero_point` int32 [K / g, N / 8], packed alike; codes of `int4` are signed |
| `int8` | `weight` int8 [N, K]; `weight_scale`, `weight_zero_point` [N], or one number |
| `fp8_e4m3` | `weight` float8_e4m3fn [N, K]; `weight_scale` [N], or one number |
| `fp4` by group, `e8m0` scales | `weight` uint8 [N, K / 2]: MXFP4, the first of two in the low bits; `weight_scale` uint8 [N, K / 32] |
| W | (code − zero point) · scale |
| x | plain, or rounded: by token, by group, or with `input_scale` and `input_zero_point`, one number each |
| sums | float32; int32 where weights and inputs are symmetric int8 |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.config import QuantizationConfigMixin, require_type
from unibody.core.quantization.interleave import pack_interleaved, unpack_interleaved
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.replacement import names_module
from unibody.core.quantization.scheme_groups import GroupSchemeLinear
from unibody.core.quantization.scheme_layers import Float4SchemeLinear, Float8SchemeLinear, Int8SchemeLinear
from unibody.core.quantization.schemes import QuantizationArgs
from unibody.core.quantization.static_scales import calibrated_scales

__all__ = [
    "QuarkConfig",
    "QuarkFloat4Linear",
    "QuarkFloat8Linear",
    "QuarkGroupLinear",
    "QuarkHfQuantizer",
    "QuarkInt8Linear",
    "calibrate",
]

TYPES = {"int4": (4, "int"), "uint4": (4, "int"), "int8": (8, "int"), "fp8_e4m3": (8, "float"), "fp4": (4, "float")}
STRATEGIES = {"per_tensor": "tensor", "per_channel": "channel", "per_group": "group"}
SPEC = {  # of weights or inputs, with the values of Quark's classes where nothing is said
    "block_size": None,
    "ch_axis": None,
    "dtype": "int8",
    "group_size": None,
    "is_dynamic": False,
    "mx_element_dtype": None,
    "qscheme": "per_tensor",
    "scale_calculation_mode": None,
    "scale_format": None,
    "symmetric": None,
}


def read_spec(spec: dict[str, Any], of_inputs: bool = False) -> QuantizationArgs:
    """How Quark rounds a tensor, in the words of the other toolkits; what no layer here does is refused."""
    values = {**SPEC, **spec}
    kind, scheme = values["dtype"], values["qscheme"]
    if kind not in TYPES or scheme not in STRATEGIES or values["scale_calculation_mode"] not in (None, "even"):
        raise ValueError(
            f"QuarkConfig: dtype {kind!r}, qscheme {scheme!r}, scale_calculation_mode "
            f"{values['scale_calculation_mode']!r} have no layer here: there are {', '.join(TYPES)}; "
            f"{', '.join(STRATEGIES)}; 'even'"
        )
    bits, number = TYPES[kind]
    tokens = of_inputs and scheme == "per_channel"
    return QuantizationArgs(
        num_bits=bits,
        type=number,
        symmetric=values["symmetric"] is not False,
        group_size=values["group_size"],
        strategy="token" if tokens else STRATEGIES[scheme],
        dynamic=bool(values["is_dynamic"]),
        scale_dtype="torch.uint8" if values["scale_format"] == "e8m0" else None,
    )


@dataclass(kw_only=True, eq=False)
class QuarkConfig(QuantizationConfigMixin):
    """What Quark's own configuration holds, as JSON; `weight`, `input_tensors` and the like of layers by name, type, or all."""

    quant_method: ClassVar[str] = "quark"
    ignored_keys: ClassVar[tuple[str, ...]] = (
        *("algo_config", "kv_cache_post_rope", "kv_cache_quant_config", "quant_mode", "softmax_quant_spec", "version"),
    )

    global_quant_config: dict[str, Any] = field(default_factory=dict)
    layer_quant_config: dict[str, Any] = field(default_factory=dict)  # by patterns of names, such as *.mlp.*
    layer_type_quant_config: dict[str, Any] = field(default_factory=dict)  # by names of classes
    exclude: list[str] | None = None  # names or patterns of layers that stay plain
    export: dict[str, Any] = field(
        default_factory=lambda: {"pack_method": "reorder", "weight_format": "real_quantized"}
    )

    def post_init(self) -> None:
        for name in ("global_quant_config", "layer_quant_config", "layer_type_quant_config", "export"):
            require_type(self, name, dict)
        require_type(self, "exclude", (list, type(None)))
        for key, only in (("pack_method", "reorder"), ("weight_format", "real_quantized")):
            if self.export.get(key, only) != only:
                raise ValueError(
                    f"QuarkConfig: {key} of export is {self.export[key]!r}, expected {only!r}: export it again"
                )
        for group in (
            self.global_quant_config,
            *self.layer_quant_config.values(),
            *self.layer_type_quant_config.values(),
        ):
            if group and group.get("output_tensors") is not None:
                raise ValueError(
                    "QuarkConfig: output_tensors are to be rounded, which is not compared with Quark: leave them out"
                )
        if vars(self).get("kv_cache_quant_config"):
            raise ValueError("QuarkConfig: kv_cache_quant_config is set, and Quark's scales of the cache are not read")

    def scheme_of(self, name: str, module: nn.Module) -> Any:
        """How weight and inputs of a layer are rounded; None: it stays plain."""
        if any(fnmatch(name, entry) or names_module(entry, name) for entry in self.exclude or ()):
            return None
        by_name = (group for entry, group in self.layer_quant_config.items() if fnmatch(name, entry))
        by_type = self.layer_type_quant_config.get(type(module).__name__, self.global_quant_config)
        group = next(by_name, by_type)
        if not group or group.get("weight") is None:
            return None
        inputs = group.get("input_tensors")
        return {
            "weights": read_spec(group["weight"]).to_dict(),
            "input_activations": None if inputs is None else read_spec(inputs, True).to_dict(),
            "unsigned": group["weight"].get("dtype") == "uint4",
        }


class QuarkGroupLinear(GroupSchemeLinear):
    """A linear layer of 4-bit integers by group, in words along the outputs."""

    coded: ClassVar[tuple[str, ...]] = ("weight", "weight_scale", "weight_zero_point")
    flat: ClassVar[bool] = True
    inverse: ClassVar[bool] = True

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config, scheme)
        self.shift = 0 if scheme["unsigned"] else 8  # what makes stored codes unsigned

    def empty_tensors(self) -> dict[str, Tensor]:
        groups, words = self.in_features // self.group_size, self.out_features // 8
        return {
            "weight": torch.empty(self.in_features, words, dtype=torch.int32),
            "weight_scale": torch.empty(groups, self.out_features),
            "weight_zero_point": torch.empty(groups, words, dtype=torch.int32),
            **self.usual_tensors(),
        }

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        return {
            "weight": pack_interleaved((weight.codes.T + self.shift) & 15),
            "weight_scale": weight.scales.T.contiguous(),
            "weight_zero_point": pack_interleaved((weight.zeros.to(torch.uint8).T + self.shift) & 15),
            **self.others,
        }

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        codes, zeros = (unpack_interleaved(stored[name]).T for name in ("weight", "weight_zero_point"))
        return GroupwiseCodes((codes + self.shift) & 15, stored["weight_scale"].T, (zeros + self.shift) & 15)


class QuarkInt8Linear(Int8SchemeLinear):
    """A linear layer of int8 codes, with zero points even where they are 0."""

    variable_tensors: ClassVar[tuple[str, ...]] = (*Int8SchemeLinear.variable_tensors, "weight_zero_point")
    flat: ClassVar[bool] = True
    inverse: ClassVar[bool] = True


class QuarkFloat8Linear(Float8SchemeLinear):
    """A linear layer of float8, with a scale for each output or one."""

    flat: ClassVar[bool] = True


class QuarkFloat4Linear(Float4SchemeLinear):
    """A linear layer of MXFP4."""

    packed_name: ClassVar[str] = "weight"

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Without negative zeros."""
        found = super().quantize(weight)
        low, high = found["weight"] & 15, found["weight"] >> 4
        return {**found, "weight": torch.where(low == 8, 0, low) | torch.where(high == 8, 0, high) << 4}


@contextmanager
def calibrate(model: Any) -> Iterator[None]:
    """While it is entered, layers with static inputs learn the range of these, from which their scale follows."""
    with calibrated_scales(model):
        yield


class QuarkHfQuantizer(HfQuantizer):
    """Reads and makes the layers of Quark's exports."""

    auto_quantizer: ClassVar[str] = "quark"
    linear_class: ClassVar[Any] = QuarkGroupLinear
    skipped_by: ClassVar[str] = "exclude"
    packed_tensor: ClassVar[str] = "weight_scale"

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        if (scheme := self.quantization_config.scheme_of(name, linear)) is None:
            return None
        args = QuantizationArgs(**scheme["weights"])
        if linear.in_features % (args.group_size or 1) or (args.num_bits == 4 and linear.out_features % 8):
            return None
        layers = {("int", 4): QuarkGroupLinear, ("int", 8): QuarkInt8Linear, ("float", 8): QuarkFloat8Linear}
        return layers.get((args.type, args.num_bits), QuarkFloat4Linear)(linear, self.quantization_config, scheme)

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also what stays plain though a group means it: heads, and layers that no whole groups or blocks fill."""
        config = self.quantization_config
        return with_plain_layers(
            super().saved_config(model),
            "exclude",
            model,
            config.exclude or (),
            lambda *named: config.scheme_of(*named) is not None,
        )
