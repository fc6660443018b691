"""Quark: the export format of AMD's toolkit (quark.docs.amd.com).

| weights | tensors |
|---|---|
| `int4`, `uint4` by group | `weight` int32 [K, N / 8]: eight outputs in a word, the even ones first; `weight_scale` [K / g, N]; |
| | `weight_zero_point` int32 [K / g, N / 8], packed alike; codes of `int4` are signed |
| `int4`, `uint4` by row | `weight` int32 [N, K / 8]: eight inputs in a word; `weight_scale` [N], `weight_zero_point` int32 [N / 8] |
| `pack_method` `order` | the same, the first of eight in the lowest bits |
| `int2` by group | `weight` int32 [K, N]: a word for each code; `weight_scale`, `weight_zero_point` [K / g, N] |
| `int3` by group or row | `weight` uint8 [N, 3 K / 8]: one stream of bits along a row; `weight_scale` [K / g, N] or [N], |
| | `weight_zero_point` uint8 [N, 3 K / 8 g] or [3 N / 8], packed alike |
| `int8`, `uint8` by group | `weight` int8 or uint8 [K, N]; `weight_scale`, `weight_zero_point` [K / g, N] |
| `int8` | `weight` int8 [N, K]; `weight_scale`, `weight_zero_point` [N], or one number; `uint8` by row alike |
| `fp8_e4m3`, `fp8_e5m2` | `weight` float8_e4m3fn or float8_e5m2 [N, K]; `weight_scale` [N], or one number |
| integers with one scale | `weight_scale` and `weight_zero_point` are numbers |
| `fp4` by group | `weight` uint8 [N, K / 2], the first of two in the low bits; `weight_scale` [N, K / g]: `scale_format` |
| | `e8m0` uint8 (MXFP4), `float32` float32 |
| `fp6_e2m3`, `fp6_e3m2`, alike | `weight` uint8 [N, 3 K / 4], one stream of bits along a row; `weight_scale` as before (MXFP6) |
| none, or `fake_quantized` | `weight` as it was [N, K], in the second case rounded, with `weight_scale` and `weight_zero_point` |
| W | (code − zero point) · scale |
| x, y | plain, or rounded: by token, by group, all, or with `input_scale` and `input_zero_point` (`output_…`), one number each |
| | x times `input_rotation` int8 [k, k] / √k by blocks of k, where there is one |
| cache | outputs of the layers that `kv_cache_quant_config` names, or what they become in the cache (`kv_cache_post_rope`) |
| sums | float32; int32 where weights and inputs are symmetric int8 |
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatch
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.config import QuantizationConfigMixin, require_type
from unibody.core.quantization.interleave import pack_interleaved, unpack_interleaved
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import dequantize_matmul, matmul_by_rows
from unibody.core.quantization.packing import pack_words, unpack_words
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.quark_specs import DTYPES, GROUP, ROUNDED, only_read, read_spec, whole_layer_config
from unibody.core.quantization.replacement import linears_to_convert
from unibody.core.quantization.scheme_groups import GroupSchemeLinear
from unibody.core.quantization.scheme_layers import (
    Float4SchemeLinear,
    Float8SchemeLinear,
    Int8SchemeLinear,
    SchemeLinear,
)
from unibody.core.quantization.schemes import QuantizationArgs
from unibody.core.quantization.static_scales import calibrated_scales, round_caches

__all__ = [
    "QuarkConfig",
    "QuarkE5M2Linear",
    "QuarkFloat4Linear",
    "QuarkFloat8Linear",
    "QuarkGroupLinear",
    "QuarkHfQuantizer",
    "QuarkInt8Linear",
    "QuarkPlainLinear",
    "calibrate",
]


@dataclass(eq=False)
class QuarkConfig(QuantizationConfigMixin):
    """What Quark's own configuration holds, as JSON; `weight`, `input_tensors` and the like of layers by name, type, or all."""

    quant_method: ClassVar[str] = "quark"
    ignored_keys: ClassVar[tuple[str, ...]] = ("quant_mode", "version")

    _: KW_ONLY
    global_quant_config: dict[str, Any] = field(default_factory=dict)
    layer_quant_config: dict[str, Any] = field(default_factory=dict)  # by patterns of names, such as *.mlp.*
    layer_type_quant_config: dict[str, Any] = field(default_factory=dict)  # by names of classes
    kv_cache_quant_config: dict[str, Any] = field(default_factory=dict)  # the same; outputs are what the cache gets
    kv_cache_post_rope: bool = (
        False  # whether keys are rounded as they come to the cache, and not before they are rotated
    )
    exclude: list[str] | None = None  # names or patterns of layers that stay plain
    algo_config: list[dict[str, Any]] | None = None  # what changed weights before they were rounded
    softmax_quant_spec: dict[str, Any] | None = None
    export: dict[str, Any] = field(
        default_factory=lambda: {"pack_method": "reorder", "weight_format": "real_quantized"}
    )

    def post_init(self) -> None:
        require_type(self, "exclude", (list, type(None)))
        for key, known in (
            ("pack_method", ("reorder", "order")),
            ("weight_format", ("real_quantized", "fake_quantized")),
        ):
            if self.export.get(key, known[0]) not in known:
                raise ValueError(
                    f"QuarkConfig: {key} of export is {self.export[key]!r}, expected {' or '.join(known)}: export it again"
                )
        for algo in self.algo_config or ():
            scaled = (algo.get("online_config") or {}).get("use_input_prescale")
            if algo.get("name") == "svdquant" or scaled or (algo.get("r3") and self.kv_cache_post_rope):
                raise ValueError(
                    f"QuarkConfig: algo_config has {algo.get('name')!r}, and no layer here adds products of low rank (svdquant), "
                    "scales inputs (use_input_prescale), or rotates keys of a rounded cache (r3)"
                )
        if self.softmax_quant_spec is not None:
            warnings.warn("QuarkConfig: softmax_quant_spec changes nothing: no softmax is rounded here", stacklevel=4)
        self.global_quant_config = whole_layer_config(self.global_quant_config, "global_quant_config")
        for name in ("layer_quant_config", "layer_type_quant_config", "kv_cache_quant_config"):
            groups = getattr(self, name).items()
            setattr(self, name, {entry: whole_layer_config(group, entry) for entry, group in groups})

    def scheme_of(self, module: nn.Module, *names: str) -> Any:
        """How weight, inputs and outputs of a layer of these names are rounded; None: not at all."""

        def means(entry: str) -> bool:
            return any(fnmatch(name, entry) for name in names)

        cached, named = (
            next((group for entry, group in groups.items() if means(entry)), None)
            for groups in (self.kv_cache_quant_config, self.layer_quant_config)
        )
        by_type = self.layer_type_quant_config.get(type(module).__name__, self.global_quant_config)
        group = next(group for group in (cached, named, by_type) if group is not None)
        if any(means(entry) for entry in self.exclude or ()):  # the cache gets what it is to get all the same
            group = {**GROUP, "output_tensors": cached["output_tensors"]} if cached else {}
        if not group or not any(group[part] for part in ROUNDED):
            return None
        packed = self.export.get("weight_format") != "fake_quantized"
        parts = [None if group[part] is None else vars(read_spec(group[part], part, packed)) for part in ROUNDED]
        if self.kv_cache_post_rope and cached:
            parts[2] = None
        first = DTYPES[group["weight"]["dtype"]][2] if packed and group["weight"] else 0
        names = ("weights", "input_activations", "output_activations")
        return {**dict(zip(names, parts, strict=True)), "weights": parts[0] if packed else None, "first": first}


class QuarkGroupLinear(GroupSchemeLinear):
    """A linear layer of integers by group, which lie along the outputs; or, with three bits or by row, along the inputs."""

    coded: ClassVar[tuple[str, ...]] = ("weight", "weight_scale", "weight_zero_point")
    flat: ClassVar[bool] = True

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config, scheme)
        self.first, self.grouped = scheme["first"], self.weights.strategy == "group"  # stored codes begin with `first`
        self.in_order = config.export.get("pack_method") == "order"

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes, scales, zeros = (
            weight.codes,
            weight.scales[:: self.height],
            weight.zeros[:: self.height].to(torch.uint8),
        )
        if self.weights.strategy == "tensor":
            zeros = (zeros.to(torch.int16) + self.first).to(torch.int32 if self.bits == 4 else torch.uint8)
        else:
            zeros = self.to_stored(zeros if self.grouped and self.bits == 3 else zeros.T)
        codes = codes.T if self.grouped and self.bits != 3 else codes
        found = {"weight": self.to_stored(codes), "weight_scale": scales.T.contiguous(), "weight_zero_point": zeros}
        if not self.grouped:
            found["weight_scale"] = found["weight_scale"].reshape(self.scale_shape())
            found["weight_zero_point"] = zeros.view((self.scale_shape() and -1) or [])
        return {**found, **self.others}

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        codes, scales = self.from_stored(stored["weight"]), stored["weight_scale"].view(self.grid[::-1]).T
        codes, zeros = codes.T if self.grouped and self.bits != 3 else codes, stored["weight_zero_point"]
        if self.weights.strategy == "tensor":
            zeros = (zeros.view(1, 1).to(torch.int16) - self.first).to(torch.uint8)
        elif self.grouped and self.bits == 3:
            zeros = self.from_stored(zeros)
        else:
            zeros = self.from_stored(zeros.view(self.grid[1], -1)).T
        return GroupwiseCodes(codes, self.for_rows(scales), self.for_rows(zeros))

    def to_stored(self, codes: Tensor) -> Tensor:
        """Codes from 0 as they are stored, and signed where the format says so."""
        codes = codes.to(torch.int16) + self.first
        if self.bits == 4:
            codes = codes & 15
            return pack_words(codes.T, 4).T.contiguous() if self.in_order else pack_interleaved(codes)
        if self.bits == 3:
            whole = F.pad(codes & 7, (0, -codes.shape[1] % 32))
            return pack_words(whole.T, 3).T.contiguous().view(torch.uint8)[:, : codes.shape[1] * 3 // 8].contiguous()
        return codes.to(torch.int32 if self.bits == 2 else torch.int8 if self.first else torch.uint8).contiguous()

    def from_stored(self, stored: Tensor) -> Tensor:
        """The inverse of to_stored."""
        if self.bits == 4:
            codes = unpack_words(stored.T, 4).T if self.in_order else unpack_interleaved(stored)
        elif self.bits == 3:
            words = F.pad(stored, (0, -stored.shape[1] % 12)).view(torch.int32)
            codes = unpack_words(words.T, 3).T[:, : stored.shape[1] * 8 // 3]
        else:
            codes = stored
        return ((codes.to(torch.int16) - self.first) & (2**self.bits - 1)).to(torch.uint8)


class QuarkInt8Linear(Int8SchemeLinear):
    """A linear layer of int8 codes, with zero points even where they are 0."""

    variable_tensors: ClassVar[tuple[str, ...]] = (*SchemeLinear.variable_tensors, "weight_zero_point")
    flat: ClassVar[bool] = True


class QuarkFloat8Linear(Float8SchemeLinear):
    """A linear layer of float8, with a scale for each output or one."""

    flat: ClassVar[bool] = True


class QuarkE5M2Linear(SchemeLinear):
    """A linear layer of float8 with five bits of exponent, which torch's and Triton's kernels here do not read."""

    flat: ClassVar[bool] = True
    kernels: ClassVar[tuple[Kernel, ...]] = (Kernel("torch", entry=matmul_by_rows),)

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        codes = self.find_codes(weight, told).to(torch.float8_e5m2)
        return {
            "weight": codes,
            "weight_scale": told["weight_scale"].view(self.scale_shape()),
            **self.other_tensors(told),
        }

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        scales = stored["weight_scale"].float()
        return (stored["weight"].float() * (scales[:, None] if scales.dim() else scales)).to(dtype)


class QuarkFloat4Linear(Float4SchemeLinear):
    """A linear layer of MXFP4 or MXFP6."""

    packed_name: ClassVar[str] = "weight"

    def find_codes(self, weight: Tensor, told: dict[str, Tensor]) -> Tensor:
        """Without negative zeros, which adding zero turns."""
        return super().find_codes(weight, told) + 0


class QuarkPlainLinear(SchemeLinear):
    """A linear layer with a weight in full precision, rounded or not, whose inputs or outputs are rounded."""

    variable_tensors: ClassVar[tuple[str, ...]] = (*SchemeLinear.variable_tensors, "weight_zero_point")
    flat: ClassVar[bool] = True
    kernels: ClassVar[tuple[Kernel, ...]] = (Kernel("torch", entry=dequantize_matmul),)

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config, {**scheme, "weights": {}})

    def choose_scales(self, weight: Tensor) -> dict[str, Tensor]:
        return {}

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"weight": weight, **self.usual_tensors()}

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return stored["weight"].to(dtype)


def calibrate(model: Any) -> AbstractContextManager[None]:
    """While it is entered, layers with static inputs or outputs learn the range of these, from which their scale follows."""
    return calibrated_scales(model)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """x [..., K] in blocks times a matrix of entries 1 and -1 that is a rotation but for its length."""
    blocks = x.unflatten(-1, (-1, len(rotation))) @ rotation.to(x.dtype)
    return (blocks / len(rotation) ** 0.5).flatten(-2)


def rotate_inputs(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return rotate(inputs[0], layer.others["input_rotation"]), *inputs[1:]


def cache_scales(attention: Any) -> dict[str, Tensor]:
    """What keys and values of an attention module are rounded by: the layers' scales of outputs."""
    layers = {"k": attention.k_proj, "v": attention.v_proj}
    return {
        f"{letter}{name.removeprefix('output')}": tensor
        for letter, layer in layers.items()
        for name, tensor in layer.others.items()
        if name.startswith("output_")
    }


class QuarkHfQuantizer(HfQuantizer):
    """Reads and makes the layers of Quark's exports."""

    auto_quantizer: ClassVar[str] = "quark"
    linear_class: ClassVar[Any] = QuarkGroupLinear
    skipped_by: ClassVar[str] = "exclude"
    packed_tensor: ClassVar[str] = "weight_scale"

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        config = self.quantization_config
        if not self.pre_quantized and (read := only_read(vars(config))):
            raise ValueError(
                f"QuarkConfig: {', '.join(read)}: that is read of checkpoints, and not done here: leave it out"
            )
        super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)
        if config.kv_cache_post_rope and config.kv_cache_quant_config:
            specs = [group["output_tensors"] for group in config.kv_cache_quant_config.values()]
            if not self.pre_quantized or None in specs or any(spec != specs[0] for spec in specs):
                raise ValueError(
                    "QuarkConfig: kv_cache_post_rope is read of checkpoints, with the same output_tensors in all of "
                    "kv_cache_quant_config; quantize with kv_cache_post_rope=False"
                )
            round_caches(model, read_spec(specs[0], "output_tensors"), cache_scales)

    def convert(self, model: Any, only: Any = None) -> None:
        """Also the layers of whose plain weights a checkpoint has no scales."""
        if only is not None:
            all_of_them = linears_to_convert(model, ()).items()
            schemes = {name: self.scheme_of(name, linear) for name, linear in all_of_them}
            only |= {name for name, scheme in schemes.items() if scheme and scheme["weights"] is None}
        super().convert(model, only)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        for layer in packed_layers(model).values():
            if "input_rotation" in layer.others:
                layer.register_forward_pre_hook(rotate_inputs)

    def dequantize(self, model: Any) -> Any:
        """As for all methods; weights of layers whose inputs are rotated are rotated back."""
        others = {name: layer.others for name, layer in packed_layers(model).items()}
        super().dequantize(model)
        for name in (name for name, tensors in others.items() if "input_rotation" in tensors):
            weight = model.get_submodule(name).weight
            weight.data = rotate(weight.data, others[name]["input_rotation"].T)
        return model

    def scheme_of(self, name: str, linear: nn.Linear) -> Any:
        return self.quantization_config.scheme_of(linear, name, self.prefix + name)

    def means(self, name: str, linear: nn.Linear) -> bool:
        return self.scheme_of(name, linear) is not None

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        if (scheme := self.scheme_of(name, linear)) is None:
            return None
        if scheme["weights"] is None:
            return QuarkPlainLinear(linear, self.quantization_config, scheme)
        args = QuantizationArgs(**scheme["weights"])
        words = 8 if args.num_bits in (3, 4) else 1
        size = max(args.group_size or 1, words) * (8 if args.num_bits == 3 and args.group_size else 1)
        if linear.in_features % size or linear.out_features % words:
            return None
        rows = args.num_bits == 8 and args.strategy != "group" and scheme["first"]
        layers = {"int": QuarkInt8Linear if rows else QuarkGroupLinear, "float": QuarkFloat4Linear}
        layer = {"e4m3": QuarkFloat8Linear, "e5m2": QuarkE5M2Linear}.get(args.element or "", layers[args.type])
        return layer(linear, self.quantization_config, scheme)

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also what stays plain though a group means it: heads, parts of names, and layers that no whole groups or blocks fill."""
        return with_plain_layers(self, model, "exclude", self.quantization_config.exclude or [], parts=False)
