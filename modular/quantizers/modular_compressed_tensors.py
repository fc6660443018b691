"""compressed-tensors: the format of llm-compressor and vLLM (github.com/vllm-project/compressed-tensors).

| `format` | tensors |
|---|---|
| `pack-quantized` | `weight_packed` int32 [N, K · b / 32]: codes + 2^(b−1), one stream of bits along a row, the first lowest |
| | `weight_scale` [N, K / g], `weight_zero_point` int32 [N · b / 32, K / g], packed down the rows; asymmetric only |
| | of blocks: `weight_scale`, `weight_zero_point` int8 [N / n, K / k]; of the whole: [1] |
| | `weight_shape` [2], `weight_g_idx` int32 [K] where groups are not of consecutive columns |
| `int-quantized`, `float-quantized`, `naive-quantized` | `weight` int8 or float8_e4m3fn [N, K] |
| | `weight_scale`: [1], [N, 1], or [N / n, K / k] for blocks of n × k; `weight_zero_point` int8; `input_scale`: [1], static only |
| `mxfp8-quantized` | `weight` float8_e4m3fn, `weight_scale` uint8 [N, K / 32]: exponents of two + 127 |
| `nvfp4-pack-quantized` | `weight_packed` uint8 [N, K / 2]: FP4 (E2M1), the first of two in the low bits; `weight_scale` float8 [N, K / 16], |
| | `weight_global_scale` [1]: W = value · scale / global; `input_global_scale` [1] |
| `mxfp4-pack-quantized` | `weight_packed` as before, `weight_scale` uint8 [N, K / 32]: exponents of two + 127 |
| `mxfp6-pack-quantized` | `weight_packed` uint8 [N, 3 K / 4]: FP6 (E2M3), one stream of bits along a row; `weight_scale` as before |
| not compressed | `weight` plain, `weight_scale`, `weight_zero_point`: rounded so while it is loaded; packed when it is saved |
| W | (code − zero) · scale |
| x, y | plain, or rounded: by token, by group, or with the checkpoint's scale (`input_scale`, `output_scale`) |
| sums | float32; int32 where weights and inputs are symmetric int8 |
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice, require_type
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear
from unibody.core.quantization.packing import pack_words, unpack_words
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.presets import cache_args, usual_format, whole_group
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import names_module, owner
from unibody.core.quantization.scheme_groups import GroupSchemeLinear
from unibody.core.quantization.scheme_layers import Float4SchemeLinear, Float8SchemeLinear, Int8SchemeLinear
from unibody.core.quantization.schemes import QuantizationArgs, block_shape, read_scheme, static_tensors
from unibody.core.quantization.static_scales import calibrated_scales, round_caches

__all__ = [
    "CompressedFloat4Linear",
    "CompressedFloat8Linear",
    "CompressedGroupLinear",
    "CompressedInt8Linear",
    "CompressedTensorsConfig",
    "CompressedTensorsHfQuantizer",
    "calibrate",
]

SPARSE = ("sparse-bitmask", "sparse-24-bitmask", "marlin-24")
FORMATS = (
    *("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"),
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized"),
)


@dataclass(eq=False)
class CompressedTensorsConfig(QuantizationConfigMixin):
    """Groups of layers, each with `targets`, `weights`, `input_activations`; or names of schemes, with the targets of each."""

    loading_attributes: ClassVar[tuple[str, ...]] = ("run_compressed", "dequantize")
    ignored_keys: ClassVar[tuple[str, ...]] = ("version", "moe_sparsity_config")
    written_if_set: ClassVar[tuple[str, ...]] = ("transform_config",)

    config_groups: dict[str, Any] | None = None
    format: str = "dense"
    quantization_status: str = "initialized"
    kv_cache_scheme: Any = None
    global_compression_ratio: float | None = None  # told, and without effect
    ignore: list[str] | None = None  # names or classes of layers that stay plain, or `re:` and a pattern
    sparsity_config: dict[str, Any] | None = None
    quant_method: str = "compressed-tensors"  # no choice, but a documented parameter
    run_compressed: bool = True  # False: layers are dequantized when they have been loaded
    _: KW_ONLY
    dequantize: bool = False
    use_optimized_inference: bool = False
    transform_config: dict[str, Any] | None = None  # rotations: those of weights are in the checkpoint's

    def post_init(self) -> None:
        sparse = (self.sparsity_config or {}).get("format", "dense")
        for name in (self.format, sparse):
            if name in SPARSE:
                raise ValueError(
                    f"CompressedTensorsConfig: the sparse format {name!r} is not read any more, by the library neither: "
                    "it has dropped sparse compressors; decompress the checkpoint with a release of it that has them"
                )
        require_choice(self, "quant_method", ("compressed-tensors",))
        require_choice(self, "format", FORMATS)
        statuses = ("initialized", "calibration", "frozen", "compressed", "decompressed")
        require_choice(self, "quantization_status", statuses)
        require_type(self, "ignore", (list, type(None)))
        require_type(self, "global_compression_ratio", (int, float, type(None)))
        for name in ("run_compressed", "dequantize", "use_optimized_inference"):
            require_type(self, name, bool)
        if self.use_optimized_inference:
            warnings.warn("use_optimized_inference changes nothing: the best kernel is chosen always", stacklevel=4)
        for name, scheme in ((self.transform_config or {}).get("config_groups") or {}).items():
            if online := {entry["location"] for entry in scheme["apply"]} - {"weight_input", "weight_output"}:
                where = f"transform_config's {name} has {', '.join(sorted(online))}"
                raise ValueError(
                    f"CompressedTensorsConfig: {where}, expected weights alone: a model is not rotated while it runs"
                )
        if self.config_groups is not None:
            self.config_groups = {name: whole_group(name, group) for name, group in self.config_groups.items()}
        if self.kv_cache_scheme is not None:
            self.kv_cache_scheme = cache_args(self.kv_cache_scheme).to_dict()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The whole may also lie under a key `quantization_config`, beside `sparsity_config`."""
        outer = {key: value for key, value in config_dict.items() if key != "quantization_config"}
        config_dict = {**outer, **(config_dict.get("quantization_config") or {})}
        return super().from_dict(config_dict, return_unused_kwargs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Without what says how a checkpoint is run."""
        values = super().to_dict()
        for name in ("run_compressed", "dequantize", "use_optimized_inference", "sparsity_config"):
            values.pop(name)
        return values

    def scheme_of(self, module: nn.Module, *names: str) -> Any:
        """The group that a layer of these names belongs to; None: it stays plain.

        A target that is its name goes before patterns, these before its class, and this before the class's bases.
        """
        if any(names_layer(entry, module, *names) for entry in self.ignore or ()):
            return None
        targets = {target: group for group in (self.config_groups or {}).values() for target in group["targets"]}
        found = [target for target in targets if names_layer(target, module, *names)]
        patterns = (target for target in found if target.startswith("re:"))
        order = (*names, *patterns, type(module).__name__, *found)
        group = next((targets[target] for target in order if target in found), None)
        return None if group is None or group["weights"] is None else group


def names_layer(entry: str, module: nn.Module, *names: str) -> bool:
    """Whether a target, or an entry of `ignore`, means a layer: by a class that it is of, its name or a pattern, as the library has it."""
    classes = (found.__name__ for found in type(module).__mro__)
    return entry in (*names, *classes) or (entry.startswith("re:") and names_module(entry, *names))


class CompressedInt8Linear(Int8SchemeLinear):
    """`int-quantized`: codes as they are."""


class CompressedFloat8Linear(Float8SchemeLinear):
    """`float-quantized` and `mxfp8-quantized`: float8 with scales of tensors, rows, groups or blocks."""


class CompressedFloat4Linear(Float4SchemeLinear):
    """`nvfp4-pack-quantized` and `mxfp4-pack-quantized`: two FP4 numbers in a byte; `mxfp6-pack-quantized`: four FP6 in three."""


class CompressedGroupLinear(GroupSchemeLinear):
    """`pack-quantized`: integers of two to eight bits in words, a scale for each group or row."""

    coded: ClassVar[tuple[str, ...]] = ("weight_packed", "weight_scale", "weight_zero_point")

    def __init__(self, linear: nn.Linear, config: CompressedTensorsConfig, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config, scheme)
        self.ordered = self.weights.actorder in ("group", "dynamic")
        self.in_words = 32 if 32 % self.bits else 32 // self.bits  # codes that fill whole words
        self.in_groups = self.weights.strategy in ("group", "channel")  # other zero points are not packed

    def usual_tensors(self) -> dict[str, Tensor]:
        return {"weight_shape": torch.tensor([self.out_features, self.in_features]), **super().usual_tensors()}

    def other_tensors(self, told: dict[str, Tensor]) -> dict[str, Tensor]:
        found, order = super().other_tensors(told), torch.arange(self.in_features, dtype=torch.int32)
        return found | {"weight_g_idx": order // self.group_size} if self.ordered else found

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        scales = weight.scales[:: self.height].reshape(self.scale_shape()).contiguous()
        found = {"weight_packed": self.pack_rows(weight.codes.T).T.contiguous(), "weight_scale": scales}
        if not self.symmetric:
            zeros = weight.zeros[:: self.height].to(torch.uint8)
            plain = zeros.to(torch.int16) - 2 ** (self.bits - 1)
            found["weight_zero_point"] = (
                self.pack_rows(zeros) if self.in_groups else plain.to(torch.int8).view(scales.shape)
            )
        return {**found, **self.others}

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        scales, middle = self.for_rows(stored["weight_scale"]), 2 ** (self.bits - 1)
        codes = self.unpack_rows(stored["weight_packed"].T, self.in_features).T
        if self.symmetric:
            zeros = torch.full(scales.shape, middle, dtype=torch.uint8, device=scales.device)
        elif self.in_groups:
            zeros = self.unpack_rows(stored["weight_zero_point"], self.out_features)
        else:
            zeros = self.for_rows((stored["weight_zero_point"].to(torch.int16) + middle).to(torch.uint8))
        return GroupwiseCodes(codes, scales, zeros, stored.get("weight_g_idx"))

    def pack_rows(self, codes: Tensor) -> Tensor:
        """Words down the rows; of the last ones only those in which there are codes."""
        whole = F.pad(codes, (0, 0, 0, -len(codes) % self.in_words))
        return pack_words(whole, self.bits)[: -(-len(codes) * self.bits // 32)]

    def unpack_rows(self, words: Tensor, count: int) -> Tensor:
        """The inverse of pack_rows, for this many codes."""
        whole = F.pad(words, (0, 0, 0, -len(words) % (self.in_words * self.bits // 32)))
        return unpack_words(whole, self.bits)[:count]

    def why_not(self, kernel: Kernel) -> str:
        if kernel.layout is not None and self.ordered:
            return "it reads groups of consecutive columns, and these are in the order of activations"
        return ""


LAYERS = {
    "pack-quantized": CompressedGroupLinear,
    "int-quantized": CompressedInt8Linear,
    "float-quantized": CompressedFloat8Linear,
    "mxfp8-quantized": CompressedFloat8Linear,
    "nvfp4-pack-quantized": CompressedFloat4Linear,
    "mxfp4-pack-quantized": CompressedFloat4Linear,
    "mxfp6-pack-quantized": CompressedFloat4Linear,
}


def calibrate(model: Any) -> AbstractContextManager[None]:
    """While it is entered, layers with static inputs or outputs learn the range of these, from which their scale follows."""
    return calibrated_scales(model)


class CompressedTensorsHfQuantizer(HfQuantizer):
    """Reads and makes layers of all formats; a model's may differ from each other."""

    auto_quantizer: ClassVar[str] = "compressed-tensors"
    linear_class: ClassVar[Any] = PackedLinear
    skipped_by: ClassVar[str] = "ignore"
    packed_tensor: ClassVar[str] = "weight_scale"
    told: Any = None  # of a checkpoint that is not compressed: the tensors of each layer

    def layer_format(self, scheme: dict[str, Any]) -> str:
        """The format of a group's layers."""
        told, (weights, inputs, _) = scheme["format"] or self.quantization_config.format, read_scheme(scheme)
        if told == "naive-quantized":
            return "float-quantized" if weights.type == "float" else "int-quantized"
        return usual_format(weights, inputs) if told in ("dense", "mixed-precision") else told

    def means(self, name: str, linear: nn.Linear) -> bool:
        return self.quantization_config.scheme_of(linear, name, self.prefix + name) is not None

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        if (scheme := self.quantization_config.scheme_of(linear, name, self.prefix + name)) is None:
            return None
        weights = QuantizationArgs(**scheme["weights"])
        block = block_shape(weights, linear.out_features, linear.in_features)
        if not self.pre_quantized and (linear.out_features % block[0] or linear.in_features % block[1]):
            return None
        return LAYERS[self.layer_format(scheme)](linear, self.quantization_config, scheme)

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        config = self.quantization_config
        if not config.config_groups:
            raise ValueError(
                "CompressedTensorsConfig: config_groups names no layers: give for example {'W4A16': ['Linear']}"
            )
        plain = self.pre_quantized and config.quantization_status != "compressed"
        if plain and not any(key.endswith(".weight_scale") for key in loaded_keys):
            raise ValueError(
                f"quantization_status is {config.quantization_status!r} and the checkpoint has no scales: quantize it, "
                "with pre_quantized=False"
            )
        super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)
        if plain:  # the weights are still to be rounded, by the scales beside them
            self.pre_quantized, self.told = False, {}
        if config.kv_cache_scheme is not None:
            round_caches(model, QuantizationArgs(**config.kv_cache_scheme))

    def create_quantized_param(
        self, model: Any, param_value: Tensor, param_name: str, target_device: Any, state_dict: dict[str, Any]
    ) -> None:
        """As for all methods; but zero points of symmetric weights, as old checkpoints have them, say nothing and are let go."""
        layer, name = owner(model, param_name)
        if self.told is not None:
            if name.startswith("weight_packed") or (name == "weight" and param_value.element_size() == 1):
                raise ValueError(
                    f"quantization_status says that the checkpoint is not compressed, and {param_name} is {param_value.dtype}: "
                    "write 'compressed' into its config.json"
                )
            self.take(layer, name, param_value.to(target_device, self.dtype if name == "weight" else None))
            return
        if name.endswith("zero_point") and name not in layer.names and not param_value.float().any():
            return
        super().create_quantized_param(model, param_value, param_name, target_device, state_dict)

    def take(self, layer: Any, name: str, tensor: Tensor) -> None:
        """Rounds a plain weight once its scales are there; what is told of inputs and outputs may come later."""
        told = self.told.setdefault(layer, {})
        if told is not None:
            told[name] = tensor
            needed = {"weight", "weight_scale"} | ({"weight_zero_point"} if not layer.weights.symmetric else set())
            needed |= {"weight_global_scale"} if layer.weights.strategy == "tensor_group" else set()
            if needed <= told.keys() and "weight_g_idx" not in told:
                told.setdefault("weight_zero_point", torch.zeros_like(told["weight_scale"]))
                layer.hold(layer.round_weight(told.pop("weight"), told))
                self.told[layer] = None
        elif name in layer.others:
            layer.hold({**layer.stored_tensors(), name: tensor})

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Refuses plain weights that lack what they are rounded by."""
        if lacking := [sorted(told) for told in (self.told or {}).values() if told is not None]:
            raise ValueError(
                "the checkpoint is said not to be compressed: expected plain weights, and their scales and zero points for "
                f"consecutive columns; a layer has {', '.join(lacking[0])}"
            )
        return super().update_missing_keys(model, missing_keys, prefix)

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also what stays plain though a group means it: heads, and layers that no whole groups or blocks fill."""
        return with_plain_layers(self, model, "ignore", self.quantization_config.ignore or [], parts=False)

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        if not self.pre_quantized:
            groups, names, linear = config.config_groups, packed_layers(model), nn.Linear(1, 1, device="meta")
            chosen = [config.scheme_of(linear, name, self.prefix + name) for name in names]
            config.config_groups = dict(sorted(groups.items()))  # as JSON has them
            if chosen != [config.scheme_of(linear, name, self.prefix + name) for name in names]:
                config.config_groups = {f"group_{i:02}": group for i, group in enumerate(groups.values())}
            for group in config.config_groups.values():
                group["format"] = self.layer_format(group)
            formats = {group["format"] for group in config.config_groups.values() if group["weights"] is not None}
            config.format = formats.pop() if len(formats) == 1 else "mixed-precision"
            config.quantization_status = "compressed"
            static = any(
                static_tensors(args, "")
                for layer in packed_layers(model).values()
                for args in (layer.inputs, layer.outputs)
            )
            if static and self.told is None:
                warnings.warn(
                    "inputs or outputs have static scales of 1: run samples with calibrate(model) entered",
                    stacklevel=2,
                )
        model = super().postprocess_model(model, **kwargs)
        return self.dequantize(model) if config.dequantize or not config.run_compressed else model
