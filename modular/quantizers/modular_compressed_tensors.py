"""compressed-tensors: the format of llm-compressor and vLLM (github.com/vllm-project/compressed-tensors).

| `format` | tensors |
|---|---|
| `pack-quantized` | `weight_packed` int32 [N, K · b / 32]: codes + 2^(b−1), one stream of bits along a row, the first lowest |
| | `weight_scale` [N, K / g], `weight_zero_point` int32 [N · b / 32, K / g], packed down the rows; asymmetric only |
| | `weight_shape` [2], `weight_g_idx` int32 [K] where groups are not of consecutive columns |
| `int-quantized`, `float-quantized`, `naive-quantized` | `weight` int8 or float8_e4m3fn [N, K] |
| | `weight_scale`: [1], [N, 1], or [N / n, K / k] for blocks of n × k; `weight_zero_point` int8; `input_scale`: [1], static only |
| `mxfp8-quantized` | `weight` float8_e4m3fn, `weight_scale` uint8 [N, K / 32]: exponents of two + 127 |
| `nvfp4-pack-quantized` | `weight_packed` uint8 [N, K / 2]: FP4 (E2M1), the first of two in the low bits; `weight_scale` float8 [N, K / 16], |
| | `weight_global_scale` [1]: W = value · scale / global; `input_global_scale` [1] |
| `mxfp4-pack-quantized` | `weight_packed` as before, `weight_scale` uint8 [N, K / 32]: exponents of two + 127 |
| W | (code − zero) · scale |
| x | plain, or rounded: by token, by group, or with the checkpoint's scale |
| sums | float32; int32 where weights and inputs are symmetric int8 |
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice, require_type
from unibody.core.quantization.float4 import pack_float4, round_to_float4, unpack_float4
from unibody.core.quantization.float8 import round_to_float8
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.int4pack import Int4PackLayout, int4pack_matmul
from unibody.core.quantization.int8 import int8_product, int8pack_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul, matmul_by_rows
from unibody.core.quantization.packing import pack_words, unpack_words
from unibody.core.quantization.presets import plain_args, usual_format, whole_group
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import names_module, owner
from unibody.core.quantization.schemes import (
    QuantizationArgs,
    block_shape,
    find_scales,
    in_blocks,
    input_tensors,
    round_values,
    to_codes,
)
from unibody.core.quantization.static_scales import calibrated_inputs, round_caches

from .modular_finegrained_fp8 import FP8Linear

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
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"),
)


@dataclass(eq=False)
class CompressedTensorsConfig(QuantizationConfigMixin):
    """Groups of layers, each with `targets`, `weights`, `input_activations`; or names of schemes, with the targets of each."""

    quant_method: ClassVar[str] = "compressed-tensors"
    loading_attributes: ClassVar[tuple[str, ...]] = ("run_compressed", "dequantize")
    ignored_keys: ClassVar[tuple[str, ...]] = ("version", "transform_config", "moe_sparsity_config")

    config_groups: dict[str, Any] | None = None
    format: str = "dense"
    quantization_status: str = "initialized"
    kv_cache_scheme: dict[str, Any] | None = None
    global_compression_ratio: float | None = None  # told, and without effect
    ignore: list[str] | None = None  # names or classes of layers that stay plain, or `re:` and a pattern
    sparsity_config: dict[str, Any] | None = None
    run_compressed: bool = True  # False: layers are dequantized when they have been loaded
    _: KW_ONLY
    dequantize: bool = False
    use_optimized_inference: bool = False

    def post_init(self) -> None:
        sparse = (self.sparsity_config or {}).get("format", "dense")
        for name in (self.format, sparse):
            if name in SPARSE:
                raise ValueError(
                    f"CompressedTensorsConfig: the sparse format {name!r} is not read any more, by the library neither: "
                    "it has dropped sparse compressors; decompress the checkpoint with a release of it that has them"
                )
        require_choice(self, "format", FORMATS)
        statuses = ("initialized", "calibration", "frozen", "compressed")
        require_choice(self, "quantization_status", statuses)
        require_type(self, "ignore", (list, type(None)))
        require_type(self, "global_compression_ratio", (int, float, type(None)))
        for name in ("run_compressed", "dequantize", "use_optimized_inference"):
            require_type(self, name, bool)
        if self.use_optimized_inference:
            warnings.warn("use_optimized_inference changes nothing: the best kernel is chosen always", stacklevel=4)
        if self.config_groups is not None:
            self.config_groups = {name: whole_group(name, group) for name, group in self.config_groups.items()}
        if self.kv_cache_scheme is not None:
            self.kv_cache_scheme = QuantizationArgs(**plain_args(self.kv_cache_scheme)).to_dict()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The whole may also lie under a key `quantization_config`, beside `sparsity_config`."""
        inner = config_dict.get("quantization_config") or {}
        outer = {key: value for key, value in config_dict.items() if key != "quantization_config"}
        return super().from_dict({**outer, **inner}, return_unused_kwargs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Without what says how a checkpoint is run."""
        values = super().to_dict()
        for name in ("run_compressed", "dequantize", "use_optimized_inference", "sparsity_config"):
            values.pop(name)
        return values

    def scheme_of(self, name: str, module: nn.Module) -> Any:
        """The group that a layer belongs to; None: it stays plain."""
        if any(names_layer(entry, name, module) for entry in self.ignore or ()):
            return None
        groups = (self.config_groups or {}).values()
        found = (group for group in groups if any(names_layer(entry, name, module) for entry in group["targets"]))
        return next((group for group in found if group["weights"] is not None), None)


def names_layer(entry: str, name: str, module: nn.Module) -> bool:
    """Whether a target, or an entry of `ignore`, means a layer: by its class, its name or a pattern."""
    return entry == type(module).__name__ or names_module(entry, name)


def plain_matmul(layer: Any, x: Tensor) -> Tensor:
    """The reference: rounded inputs, the weight in their type, and torch's product."""
    return dequantize_matmul(layer, layer.round_inputs(x))


def rows_matmul(layer: Any, x: Tensor) -> Tensor:
    """The same, of some rows of the weight at a time."""
    return matmul_by_rows(layer, layer.round_inputs(x))


def group_matmul(layer: Any, x: Tensor) -> Tensor:
    """Rounded inputs, and torch's kernel for 4-bit groups."""
    return int4pack_matmul(layer, layer.round_inputs(x))


def int8_matmul(layer: Any, x: Tensor) -> Tensor:
    """Codes of inputs and weight, multiplied as integers; a scale for each token, or the checkpoint's, and for each row."""
    (codes, scales), (weight, steps) = layer.int8_inputs(x.reshape(-1, x.shape[-1])), layer.int8_rows()
    y = int8_product(codes, weight) * (scales[:, None] * steps.float())
    y = (y if layer.bias is None else y + layer.bias.float()).to(x.dtype)
    return y.view(*x.shape[:-1], -1)


class CompressedLinear(PackedLinear):
    """The base of layers whose weights and inputs are rounded as a group of the configuration says."""

    variable_tensors: ClassVar[tuple[str, ...]] = ("weight_scale", "input_")

    def __init__(self, linear: nn.Linear, config: CompressedTensorsConfig, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config)
        self.weights, self.inputs = read_scheme(scheme)

    def usual_tensors(self) -> dict[str, Tensor]:
        return input_tensors(self.inputs)

    def round_inputs(self, x: Tensor) -> Tensor:
        return x if self.inputs is None else round_values(x, self.inputs, self.stored_tensors())


def read_scheme(scheme: dict[str, Any]) -> tuple[QuantizationArgs, QuantizationArgs | None]:
    """How weights and inputs of a group are rounded."""
    inputs = scheme["input_activations"]
    return QuantizationArgs(**scheme["weights"]), None if inputs is None else QuantizationArgs(**inputs)


class CompressedInt8Linear(CompressedLinear):
    """`int-quantized`: codes as they are."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("int8_product", entry=int8_matmul, multiples=(8, 8)),
        Kernel("int8pack_cpu", entry=int8pack_matmul, device="cpu", dtypes=("bfloat16",)),
        Kernel(
            "triton_int8",
            template="int8_matmul.triton.py.j2",
            device="cuda",
            capability=(8, 0),  # Triton's products of int8
            package="triton",
        ),
        Kernel("torch", entry=plain_matmul),
    )

    def scale_shape(self) -> list[int]:
        block = block_shape(self.weights, self.out_features, self.in_features)
        shape = [self.out_features // block[0], self.in_features // block[1]]
        return [1] if self.weights.strategy == "tensor" else shape

    def empty_tensors(self) -> dict[str, Tensor]:
        shape = self.scale_shape()
        found = {
            "weight": torch.empty(self.out_features, self.in_features, dtype=torch.int8, device="meta"),
            "weight_scale": torch.empty(shape, device="meta"),
        }
        if not self.weights.symmetric:
            found["weight_zero_point"] = torch.empty(shape, dtype=torch.int8, device="meta")
        return found | {name: tensor.to("meta") for name, tensor in self.usual_tensors().items()}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        shape = self.scale_shape()
        blocks = in_blocks(weight, block_shape(self.weights, *weight.shape))
        scales, zeros = find_scales(blocks.amin((1, 3), True), blocks.amax((1, 3), True), self.weights)
        codes = to_codes(blocks / scales + zeros, self.weights).view(weight.shape).to(torch.int8)
        found = {"weight": codes, "weight_scale": scales.view(shape)} | self.usual_tensors()
        return found if self.weights.symmetric else found | {"weight_zero_point": zeros.view(shape).to(torch.int8)}

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes, scales = stored["weight"].float(), stored["weight_scale"].float()
        blocks = in_blocks(codes, block_shape(self.weights, *codes.shape))
        zeros = stored["weight_zero_point"].float() if "weight_zero_point" in stored else torch.zeros_like(scales)
        shape = (blocks.shape[0], 1, blocks.shape[2], 1)
        return ((blocks - zeros.view(shape)) * scales.view(shape)).view(codes.shape).to(dtype)

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        stored = self.stored_tensors()
        return stored["weight"], stored["weight_scale"].view(-1).expand(self.out_features)

    def int8_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.inputs is None:
            return rows, None
        stored = self.stored_tensors()
        if "input_scale" in stored:
            scales = stored["input_scale"].to(rows.dtype).view(1, 1).expand(len(rows), 1)
        else:
            scales, _ = find_scales(*rows.aminmax(dim=1, keepdim=True), self.inputs)
        return to_codes(rows / scales, self.inputs).to(torch.int8), scales.float().flatten()

    def why_not(self, kernel: Kernel) -> str:
        if kernel.name == "torch":
            return ""
        if not self.weights.symmetric or self.weights.strategy not in ("channel", "tensor"):
            return "it reads symmetric codes with a scale for each row"
        args = self.inputs
        if args is None and kernel.name == "triton_int8":
            return ""
        if kernel.name == "int8pack_cpu":
            return "" if args is None else "its inputs are not rounded"
        int8 = args is not None and args.type == "int" and args.num_bits == 8 and args.symmetric
        fits = int8 and args is not None and args.strategy == ("token" if args.dynamic else "tensor")
        return "" if fits else "it reads inputs of symmetric int8, with a scale for each token or one for all"


class CompressedFloat8Linear(FP8Linear):
    """`float-quantized` and `mxfp8-quantized`: float8 with scales of tensors, rows, groups or blocks."""

    scale_name: ClassVar[str] = "weight_scale"
    variable_tensors: ClassVar[tuple[str, ...]] = ("weight_scale", "input_")

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        self.weights, self.inputs = read_scheme(scheme)  # the size of blocks depends on it
        super().__init__(linear, config)

    def block_size(self) -> tuple[int, int]:
        return block_shape(self.weights, self.out_features, self.in_features)

    def scale_shape(self) -> list[int]:
        sizes = zip((self.out_features, self.in_features), self.block, strict=True)
        return [1] if self.weights.strategy == "tensor" else [-(-size // block) for size, block in sizes]

    def empty_tensors(self) -> dict[str, Tensor]:
        shape = (self.out_features, self.in_features)
        kind = torch.uint8 if self.weights.scale_dtype else torch.float32
        found = {
            "weight": torch.empty(shape, dtype=torch.float8_e4m3fn, device="meta"),
            "weight_scale": torch.empty(self.scale_shape(), dtype=kind, device="meta"),
        }
        return found | {name: tensor.to("meta") for name, tensor in self.usual_tensors().items()}

    def usual_tensors(self) -> dict[str, Tensor]:
        return input_tensors(self.inputs)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        blocks = in_blocks(weight, self.block)
        scales, _ = find_scales(blocks.amin((1, 3), True), blocks.amax((1, 3), True), self.weights)
        codes, scales = round_to_float8(blocks / scales).view(weight.shape), scales.view(self.scale_shape())
        scales = scales.float().to(torch.float8_e8m0fnu).view(torch.uint8) if self.weights.scale_dtype else scales
        return {"weight": codes, "weight_scale": scales, **self.usual_tensors()}

    def read_scales(self, stored: dict[str, Tensor]) -> Tensor:
        scales = stored["weight_scale"]
        scales = scales.view(torch.float8_e8m0fnu) if scales.dtype == torch.uint8 else scales
        return scales.float().view(()) if self.weights.strategy == "tensor" else scales.float()

    def read_inputs(self, x: Tensor) -> Tensor:
        values = x.float()
        if self.inputs is not None:
            values = super().read_inputs(x)
        return values

    def round_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stored, args = self.stored_tensors(), self.inputs
        if args is None:
            raise ValueError("the inputs of this layer are not rounded")
        if not args.dynamic:
            scale = stored["input_scale"].to(x.dtype).view(())
            return round_to_float8(x / scale), scale.float()
        blocks = x.unflatten(-1, (-1, self.block[1]))
        scales, _ = find_scales(blocks.amin(-1), blocks.amax(-1), args)
        return round_to_float8(blocks / scales[..., None]).view(x.shape), scales.float()

    def why_not(self, kernel: Kernel) -> str:
        if self.inputs is None and kernel.name != "torch":
            return "it rounds inputs, and this layer's are not to be"
        return super().why_not(kernel)


class CompressedGroupLinear(GroupwiseLinear):
    """`pack-quantized`: integers of two to eight bits in words, a scale for each group or row."""

    coded: ClassVar[tuple[str, ...]] = ("weight_packed", "weight_scale", "weight_zero_point")
    variable_tensors: ClassVar[tuple[str, ...]] = ("weight_scale", "input_")
    packing: ClassVar[Packing] = Packing(word="int32", axis=0, ordered=False)  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton_groups",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            multiples=(32, 32),
        ),
        Kernel(
            "int4pack_cuda",
            entry=group_matmul,
            layout=Int4PackLayout,
            device="cuda",
            capability=(8, 0),
            dtypes=("bfloat16",),
            bits=(4,),
            group_size=(32, 64, 128, 256),
            multiples=(8, 1024),
        ),
        Kernel(
            "int4pack_cpu",
            entry=group_matmul,
            layout=Int4PackLayout,
            device="cpu",
            dtypes=("bfloat16",),
            bits=(4,),
            group_size=(32, 64, 128, 256),
            multiples=(16, 1),
        ),
        Kernel("torch", entry=plain_matmul),
    )

    def __init__(self, linear: nn.Linear, config: CompressedTensorsConfig, scheme: dict[str, Any]) -> None:
        self.weights, self.inputs = read_scheme(scheme)
        size = -1 if self.weights.strategy in ("channel", "tensor") else self.weights.group_size or -1
        super().__init__(linear, config, self.weights.num_bits, size)
        self.symmetric = self.weights.symmetric
        self.others: dict[str, Tensor] = {}  # what a kernel's layout does not hold

    def empty_tensors(self) -> dict[str, Tensor]:
        groups, (rows, columns) = self.in_features // self.group_size, (self.out_features, self.in_features)
        count = 32 if 32 % self.bits else 32 // self.bits
        words = [-(-size // count) * count * self.bits // 32 for size in (rows, columns)]
        found = {
            "weight_packed": torch.empty(rows, words[1], dtype=torch.int32, device="meta"),
            "weight_scale": torch.empty(rows, groups, device="meta"),
            "weight_shape": torch.empty(2, dtype=torch.int64, device="meta"),
        }
        if not self.symmetric:
            found["weight_zero_point"] = torch.empty(words[0], groups, dtype=torch.int32, device="meta")
        if self.weights.actorder in ("group", "dynamic"):
            found["weight_g_idx"] = torch.empty(columns, dtype=torch.int32, device="meta")
        return found | {name: tensor.to("meta") for name, tensor in self.usual_tensors().items()}

    def usual_tensors(self) -> dict[str, Tensor]:
        return {"weight_shape": torch.tensor([self.out_features, self.in_features]), **input_tensors(self.inputs)}

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        if layout is None:
            self.others = {name: tensor for name, tensor in tensors.items() if name not in self.coded}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        groups = weight.unflatten(1, (-1, self.group_size))
        scales, zeros = find_scales(groups.amin(-1), groups.amax(-1), self.weights)
        codes, middle = to_codes(groups / scales[..., None] + zeros[..., None], self.weights), 2 ** (self.bits - 1)
        self.others = self.usual_tensors()
        if self.weights.actorder in ("group", "dynamic"):
            self.others["weight_g_idx"] = torch.arange(self.in_features, dtype=torch.int32) // self.group_size
        unsigned = ((part + middle).to(torch.uint8) for part in (codes.flatten(1), zeros))
        return self.pack_codes(GroupwiseCodes(next(unsigned), scales, next(unsigned)))

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        count = 32 if 32 % self.bits else 32 // self.bits
        codes = F.pad(weight.codes, (0, -self.in_features % count))
        found = {"weight_packed": pack_words(codes.T, self.bits).T.contiguous(), "weight_scale": weight.scales}
        if not self.symmetric:
            zeros = F.pad(weight.zeros.to(torch.uint8), (0, 0, 0, -self.out_features % count))
            found["weight_zero_point"] = pack_words(zeros, self.bits)
        return {**found, **self.others}

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        scales = stored["weight_scale"]
        codes = unpack_words(stored["weight_packed"].T, self.bits).T[:, : self.in_features]
        if self.symmetric:
            zeros = torch.full(scales.shape, 2 ** (self.bits - 1), dtype=torch.uint8, device=scales.device)
        else:
            zeros = unpack_words(stored["weight_zero_point"], self.bits)[: self.out_features]
        return GroupwiseCodes(codes, scales, zeros, stored.get("weight_g_idx"))

    def round_inputs(self, x: Tensor) -> Tensor:
        return x if self.inputs is None else round_values(x, self.inputs, self.others)

    def why_not(self, kernel: Kernel) -> str:
        if kernel.layout is not None and "weight_g_idx" in self.others:
            return "it reads groups of consecutive columns, and these are in the order of activations"
        return ""


class CompressedFloat4Linear(CompressedLinear):
    """`nvfp4-pack-quantized` and `mxfp4-pack-quantized`: two FP4 numbers in a byte."""

    packed_name: ClassVar[str] = "weight_packed"
    packing: ClassVar[Packing] = Packing(word="uint8", axis=0, order=(0, 1), scale="byte")
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("triton_float4", template="table_matmul.triton.py.j2", device="cuda", package="triton"),
        Kernel("torch", entry=rows_matmul),
    )

    def empty_tensors(self) -> dict[str, Tensor]:
        size, overall = self.weights.group_size or 1, self.weights.strategy == "tensor_group"
        kind = torch.float8_e4m3fn if overall else torch.uint8
        found = {
            self.packed_name: torch.empty(self.out_features, self.in_features // 2, dtype=torch.uint8, device="meta"),
            "weight_scale": torch.empty(self.out_features, self.in_features // size, dtype=kind, device="meta"),
        }
        found |= {"weight_global_scale": torch.empty(1, device="meta")} if overall else {}
        return found | {name: tensor.to("meta") for name, tensor in self.usual_tensors().items()}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        groups = weight.unflatten(1, (-1, self.weights.group_size or 1))
        low, high, overall = groups.amin(-1), groups.amax(-1), None
        if self.weights.strategy == "tensor_group":
            overall = (448 * 6 / weight.abs().amax()).float().view(1)
        scales, _ = find_scales(low, high, self.weights, overall)
        steps = scales if overall is None else scales / overall
        packed = pack_float4(round_to_float4(groups / steps[..., None]).flatten(1))
        kind = torch.float8_e8m0fnu if overall is None else torch.float8_e4m3fn
        stored = scales.float().to(kind)
        found = {
            self.packed_name: packed,
            "weight_scale": stored.view(torch.uint8) if overall is None else stored,
        }
        return found | ({} if overall is None else {"weight_global_scale": overall}) | self.usual_tensors()

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        packed, scales = stored[self.packed_name], stored["weight_scale"]
        values = unpack_float4(packed).view(*scales.shape, -1)
        if "weight_global_scale" in stored:
            steps = scales.float() / stored["weight_global_scale"].float()
        else:
            steps = scales.view(torch.float8_e8m0fnu).float()
        return (values * steps[..., None]).flatten(1).to(dtype)

    def table_blocks(self) -> tuple[Tensor, Tensor | None, Tensor, int]:
        """Bytes, what all numbers are divided by, a byte of scale for each block, and a block's columns."""
        stored = self.stored_tensors()
        packed, scales, overall = stored[self.packed_name], stored["weight_scale"], stored.get("weight_global_scale")
        scales = scales if scales.dtype == torch.uint8 else scales.view(torch.int8)
        return packed, None if overall is None else overall.float(), scales, self.in_features // scales.shape[1]


LAYERS = {
    "pack-quantized": CompressedGroupLinear,
    "int-quantized": CompressedInt8Linear,
    "float-quantized": CompressedFloat8Linear,
    "mxfp8-quantized": CompressedFloat8Linear,
    "nvfp4-pack-quantized": CompressedFloat4Linear,
    "mxfp4-pack-quantized": CompressedFloat4Linear,
}


@contextmanager
def calibrate(model: Any) -> Iterator[None]:
    """While it is entered, layers with static inputs learn the range of these, from which their scale follows."""
    with calibrated_inputs(model):
        yield


class CompressedTensorsHfQuantizer(HfQuantizer):
    """Reads and makes layers of all formats; a model's may differ from each other."""

    auto_quantizer: ClassVar[str] = "compressed-tensors"
    linear_class: ClassVar[Any] = CompressedLinear
    skipped_by: ClassVar[str] = "ignore"
    packed_tensor: ClassVar[str] = "weight_scale"

    def layer_format(self, scheme: dict[str, Any]) -> str:
        """The format of a group's layers."""
        told, (weights, inputs) = scheme["format"] or self.quantization_config.format, read_scheme(scheme)
        if told == "naive-quantized":
            return "float-quantized" if weights.type == "float" else "int-quantized"
        return usual_format(weights, inputs) if told in ("dense", "mixed-precision") else told

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        if (scheme := self.quantization_config.scheme_of(name, linear)) is None:
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
        if self.pre_quantized and config.quantization_status != "compressed":
            raise ValueError(
                f"quantization_status is {config.quantization_status!r}: the checkpoint's weights are not compressed yet; "
                "save it with compressed-tensors' ModelCompressor first"
            )
        super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)
        if config.kv_cache_scheme is not None:
            round_caches(model, QuantizationArgs(**config.kv_cache_scheme))

    def create_quantized_param(
        self, model: Any, param_value: Tensor, param_name: str, target_device: Any, state_dict: dict[str, Any]
    ) -> None:
        """As for all methods; but zero points of symmetric weights, as old checkpoints have them, say nothing and are let go."""
        layer, name = owner(model, param_name)
        if name.endswith("zero_point") and name not in layer.names and not param_value.float().any():
            return
        super().create_quantized_param(model, param_value, param_name, target_device, state_dict)

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        if not self.pre_quantized:
            for group in config.config_groups.values():
                group["format"] = self.layer_format(group)
            formats = {group["format"] for group in config.config_groups.values() if group["weights"] is not None}
            config.format = formats.pop() if len(formats) == 1 else "mixed-precision"
            config.quantization_status = "compressed"
            if any(input_tensors(layer.inputs) for layer in packed_layers(model).values()):
                warnings.warn(
                    "inputs have static scales of 1: run samples with calibrate(model) entered", stacklevel=2
                )
        model = super().postprocess_model(model, **kwargs)
        return self.dequantize(model) if config.dequantize or not config.run_compressed else model
