"""torchao: integers of two to eight bits and float8, by row, by group or whole, inputs rounded or not (github.com/pytorch/ao).

| `quant_type` | `_weight_qdata` [N, K] | `_weight_scale` [N, K / g] | inputs |
|---|---|---|---|
| `Int8WeightOnlyConfig` | int8 | float32 | plain |
| `Int8DynamicActivationInt8WeightConfig` | int8, of seven bits with `reduce_range` | float32 | int8, symmetric or not, a scale for each token or for all |
| `Int4WeightOnlyConfig`, `PLAIN` | int8 [N, K / 2], two codes in a byte | [K / g, N], the weight's type | plain |
| the same, `TILE_PACKED_TO_4D` | int32 [N / 8, K / 128, 32, 4], columns filled up to 1024 | `_weight_scale_and_zero` bfloat16 [K / g, N, 2] | plain |
| `IntxWeightOnlyConfig` | int8 that holds int2 to int8 | the weight's type, or `scale_dtype` | plain |
| `Int8DynamicActivationIntxWeightConfig` | int8 that holds int2 to int8 | the same | int8, asymmetric, a scale for each token |
| `Float8WeightOnlyConfig` | float8_e4m3fn, float8_e5m2 | float32 | plain |
| `Float8DynamicActivationFloat8WeightConfig` | the same | float32 | float8, a scale for each token or for all |
| `FqnToConfig` | as the type of the layer's name | | |

| | |
|---|---|
| `_weight_zero_point` | int8 [N, K / g]; integers only; of packed int4 as the scales |
| g | K, or the group's size; `PerTensor`: scale and zero point are [1, 1] |
| W | (code − zero point) · scale; packed int4: signed code · scale + zero point |
| sums | int32 of the inputs of `Int8DynamicActivationInt8WeightConfig`, float32 otherwise |
| header of the file | for each tensor, as JSON, its class in torchao and what this is made with |
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes, nearest_codes
from unibody.core.quantization.ao_header import tensor_header
from unibody.core.quantization.ao_int4 import Int4ShiftLinear
from unibody.core.quantization.ao_rounding import (
    asymmetric_codes,
    int8_matmul,
    scaled_float8,
    symmetric_codes,
    symmetric_scales,
    widen_codes,
)
from unibody.core.quantization.ao_types import MAPS, read_scheme, types_by_name, values_of, whole_type, written
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin
from unibody.core.quantization.float8_linear import scaled_matmul
from unibody.core.quantization.half_quadratic import fit_scales
from unibody.core.quantization.int8 import int8pack_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.linear import PackedLinear, matmul_by_rows
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import names_module, set_module, tied_weights

__all__ = ["TorchAoConfig", "TorchAoEmbedding", "TorchAoHfQuantizer", "TorchAoInt4Linear", "TorchAoLinear"]


@dataclass(eq=False)
class TorchAoConfig(QuantizationConfigMixin):
    """A type of torchao: its object, its JSON, or its name with options."""

    quant_method: ClassVar[str] = "torchao"

    quant_type: Any
    modules_to_not_convert: list[str] | None = None
    include_input_output_embeddings: bool = False
    untie_embedding_weights: bool = False  # tied embeddings and head become two, each with its own codes
    _: KW_ONLY
    group_size: int | None = None  # these three belong to a name
    weight_dtype: Any = None
    mapping_type: Any = None

    def post_init(self) -> None:
        options = {name: getattr(self, name) for name in ("group_size", "weight_dtype", "mapping_type")}
        self.quant_type = whole_type(self.quant_type, {k: v for k, v in options.items() if v is not None})
        self.group_size = self.weight_dtype = self.mapping_type = None
        if self.untie_embedding_weights and not self.include_input_output_embeddings:
            warnings.warn(
                "untie_embedding_weights changes nothing without include_input_output_embeddings", stacklevel=4
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A name's options may also be a dictionary of their own, `quant_type_kwargs`, as they once were."""
        values = {**config_dict, **(config_dict.get("quant_type_kwargs") or {})}
        values.pop("quant_type_kwargs", None)
        return super().from_dict(values, return_unused_kwargs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The type under `default`; options are in it."""
        values = super().to_dict()
        for name in ("group_size", "weight_dtype", "mapping_type"):
            values.pop(name, None)
        return {**values, "quant_type": {"default": values["quant_type"]}}

    def get_apply_tensor_subclass(self) -> Any:
        """The type as an object of torchao's, which must be installed for that."""
        return import_module("torchao.core.config").config_from_dict(self.quant_type)

    def type_of(self, *modules: str, is_named: bool = False) -> Any:
        """The type of the layer of these names, or that by which a map names it; None: it stays plain.

        That is the entry of its weight's name, or its own, or the first pattern for either; or else `_default`.
        """
        if self.quant_type["_type"] not in MAPS:
            return None if is_named else self.quant_type
        entries = types_by_name(self.quant_type)
        names = [*(f"{module}.weight" for module in modules), *modules]
        patterns = (key for key in entries if key[:3] == "re:" and any(re.fullmatch(key[3:], n) for n in names))
        found = entries.get([*(n for n in names if n in entries), *patterns, "" if is_named else "_default"][0])
        return None if found is None else whole_type(found, {})


class TorchAoLinear(PackedLinear):
    """A linear layer of torchao's codes."""

    packing: ClassVar[Packing] = Packing(word="int32")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("int8_product", entry=int8_matmul, bits=(7, 8), multiples=(8, 8)),
        Kernel("int8pack_cpu", entry=int8pack_matmul, device="cpu", dtypes=("bfloat16",), multiples=(1, 16)),
        Kernel(
            "triton_int8",
            template="int8_matmul.triton.py.j2",
            device="cuda",
            capability=(8, 0),  # Triton's products of int8
            package="triton",
            bits=(8,),
        ),
        Kernel(
            "scaled_mm",
            entry=scaled_matmul,
            device="cuda",
            capability=(8, 9),
            dtypes=("bfloat16",),
            multiples=(16, 16),
        ),
        Kernel(
            "triton_groups",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            multiples=(32, 32),
        ),
        Kernel("torch", entry=matmul_by_rows),
    )

    def __init__(self, linear: Any, config: TorchAoConfig, quant_type: dict[str, Any]) -> None:
        super().__init__(linear, config)
        self.quant_type, self.scheme = quant_type, read_scheme(quant_type)
        self.bits = self.scheme.bits
        self.group_size = self.scheme.group_size or self.in_features
        self.values = values_of(quant_type)
        types = [written(self.values.get(name, "int8")) for name in ("weight_dtype", "activation_dtype")]
        self.weight_type, self.input_type = (getattr(torch, name) for name in types)

    def fits(self) -> bool:
        multiple = 16 if self.scheme.inputs == "float8" else 1  # of both sizes, as torchao has it
        return self.out_features % multiple == self.in_features % multiple == self.in_features % self.group_size == 0

    def empty_tensors(self) -> dict[str, Tensor]:
        groups = (1, 1) if self.scheme.whole else (self.out_features, self.in_features // self.group_size)
        code = self.weight_type if self.scheme.kind == "float8" else torch.int8
        found = {
            "_weight_qdata": torch.empty(self.out_features, self.in_features, dtype=code),
            "_weight_scale": torch.empty(groups),
        }
        return found if code.is_floating_point else found | {"_weight_zero_point": torch.empty(groups, dtype=code)}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """As torchao does: int8 and float8 with scales in float32, the others whole in the weight's type."""
        scheme, kind, bits = self.scheme, self.scheme.kind, self.scheme.bits
        groups = weight.unflatten(1, (-1, self.group_size))
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        largest = torch.maximum(-low, high)
        largest = largest.amax().view(1, 1) if scheme.whole else largest
        if kind == "float8":
            codes, scales = scaled_float8(groups, largest[..., None], self.weight_type)
            return {"_weight_qdata": codes.flatten(1), "_weight_scale": scales[..., 0]}
        lowest, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        zeros = torch.zeros_like(largest)
        if kind == "int8":
            scales = symmetric_scales(largest, bits)
        else:
            ends = {"unclipped": torch.maximum(low / lowest, high / top), "": largest / ((2**bits - 1) / 2)}
            scales = ends.get(scheme.fit, largest) if scheme.symmetric else (high - low) / (2**bits - 1)
            scales = fit_scales(groups, bits) if scheme.fit == "fitted" else scales
            scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)
            zeros = zeros if scheme.symmetric else (lowest - (low / scales).round()).clamp(lowest, top)
            exact, scale_type = scales, getattr(torch, scheme.scale_type) if scheme.scale_type else weight.dtype
            scales = exact.to(scale_type)
        rounded_by = exact if scheme.fit == "fitted" else scales
        codes = nearest_codes(groups, rounded_by[..., None], zeros[..., None], bits)
        return {
            "_weight_qdata": codes.flatten(1).to(torch.int8),
            "_weight_scale": scales,
            "_weight_zero_point": zeros.to(torch.int8),
        }

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes, scales = stored["_weight_qdata"], stored["_weight_scale"]
        wide = dtype if scales.dtype == dtype else torch.float32  # integers are exact in all of them
        groups = widen_codes(codes).to(wide).unflatten(1, (-1, self.group_size))
        if not self.scheme.symmetric:
            groups = groups - stored["_weight_zero_point"].to(wide)[..., None]
        return (groups * scales.to(wide)[..., None]).flatten(1).to(dtype)

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        """Codes and zero points of integers, from 0."""
        middle = 2 ** (self.bits - 1)
        codes, zeros = ((stored[f"_weight_{name}"] + middle).to(torch.uint8) for name in ("qdata", "zero_point"))
        return GroupwiseCodes(codes, stored["_weight_scale"], zeros)

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        """The inverse of unpack_codes."""
        codes, zeros = ((part.int() - 2 ** (self.bits - 1)).to(torch.int8) for part in (weight.codes, weight.zeros))
        return {"_weight_qdata": codes, "_weight_scale": weight.scales, "_weight_zero_point": zeros}

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        stored = self.stored_tensors()
        return stored["_weight_qdata"], stored["_weight_scale"].view(-1).expand(self.out_features)

    def int8_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.scheme.inputs:
            return rows, None
        steps = symmetric_scales(self.largest(rows), self.bits)
        return symmetric_codes(rows, steps, self.bits).to(torch.int8), steps[:, 0]

    def largest(self, x: Tensor) -> Tensor:
        """Magnitudes [..., 1] of tokens, or of all."""
        sizes = x.abs().amax(-1, keepdim=True)
        return sizes.amax().expand_as(sizes) if self.scheme.whole_inputs else sizes

    def float8_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [..., K] of inputs and the scales of tokens [..., 1]."""
        bounds = [self.values[f"activation_value_{end}"] for end in ("lb", "ub")]
        largest = self.largest(x)
        return scaled_float8(x, largest if bounds == [None, None] else largest.clamp(*bounds), self.input_type)

    def float8_rows(self) -> tuple[Tensor, Tensor]:
        stored = self.stored_tensors()
        return stored["_weight_qdata"], stored["_weight_scale"]

    def round_inputs(self, x: Tensor) -> Tensor:
        """What x is after rounding, in its type."""
        if not self.scheme.inputs:
            return x
        if self.scheme.inputs == "float8":
            codes, scales = self.float8_inputs(x)
            return (widen_codes(codes).float() * scales).to(x.dtype)
        if self.scheme.inputs == "symmetric":
            steps = symmetric_scales(self.largest(x), self.bits)
            return (symmetric_codes(x, steps, self.bits) * steps).to(x.dtype)
        bits, values = (self.bits, x) if self.scheme.kind == "int8" else (8, x.float())
        codes, scales, zeros = asymmetric_codes(values, bits, self.scheme.whole_inputs)
        return ((codes - zeros) * scales).to(x.dtype)

    def why_not(self, kernel: Kernel) -> str:
        kind, _, group_size, symmetric, inputs, *_ = self.scheme
        if kernel.name == "torch":
            return ""
        if torch.float8_e5m2 in (self.weight_type, self.input_type):
            return "it reads float8_e4m3fn"
        if kernel.name == "scaled_mm" or inputs == "float8":
            return "" if kernel.name == "scaled_mm" and inputs == "float8" else "it is for other inputs"
        if kernel.name == "triton_groups":
            return "it reads integers with a scale for each row" if kind == "float8" or self.scheme.whole else ""
        if group_size or not symmetric or (kind == "float8" and kernel.name != "triton_int8"):
            return "it reads symmetric integers with a scale for each row"
        if kernel.name == "triton_int8":
            return "it rounds inputs symmetrically" if inputs == "asymmetric" else ""
        if kernel.name == "int8_product":
            return "" if inputs and kind == "int8" else "it rounds inputs of int8"
        return "its inputs are not rounded" if inputs else ""

    def header(self, dtype: torch.dtype) -> str:
        """What torchao writes about the weight of a model of this type into a file's header."""
        block = [self.out_features if self.scheme.whole else 1, self.group_size]
        names = [name.removeprefix("_weight_") for name in self.names]
        return tensor_header(self.quant_type, self.scheme, block, str(dtype).removeprefix("torch."), names)


class TorchAoInt4Linear(Int4ShiftLinear):
    """A linear layer of packed int4."""


def look_up(layer: Any, ids: Tensor) -> Tensor:
    """[..., K]: the dequantized rows of these ids, in the model's type."""
    stored, ids_in_row = layer.stored_tensors(), ids.reshape(-1)
    rows = {name: tensor[ids_in_row] if len(tensor) > 1 else tensor for name, tensor in stored.items()}
    return layer.unpack(rows, layer.output_dtype).view(*ids.shape, -1)


class TorchAoEmbedding(TorchAoLinear):
    """An embedding of torchao's codes; `out_features` is the number of ids."""

    kernels: ClassVar[tuple[Kernel, ...]] = (Kernel("torch", entry=look_up),)

    def __init__(self, embedding: nn.Embedding, config: TorchAoConfig, quant_type: dict[str, Any]) -> None:
        linear = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
        super().__init__(linear, config, quant_type)
        self.output_dtype = torch.float32
        self.padding_idx = embedding.padding_idx

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        if dtype.is_floating_point:  # the model's; ids say nothing of it
            self.output_dtype = dtype
        super().prepare(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return look_up(self, x)  # x are ids, no rows

    def plain(self, dtype: torch.dtype) -> nn.Module:
        return nn.Embedding.from_pretrained(self.dequantize(dtype), freeze=False, padding_idx=self.padding_idx)


class TorchAoHfQuantizer(HfQuantizer):
    """Reads and makes torchao's layers, and on request embeddings."""

    auto_quantizer: ClassVar[str] = "torchao"
    linear_class: ClassVar[Any] = TorchAoLinear
    packed_tensor: ClassVar[str] = "_weight_qdata"

    def means(self, name: str, linear: nn.Linear) -> bool:
        return self.quantization_config.type_of(name, self.prefix + name) is not None

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        if (quant_type := self.quantization_config.type_of(name, self.prefix + name)) is None:
            return None
        layer_class = TorchAoInt4Linear if quant_type["_type"] == "Int4WeightOnlyConfig" else TorchAoLinear
        layer = layer_class(linear, self.quantization_config, quant_type)
        return layer if layer.fits() else None

    def get_modules_to_not_convert(self, model: Any) -> list[str]:
        config = self.quantization_config
        if config.include_input_output_embeddings and config.modules_to_not_convert is None:
            return []
        return super().get_modules_to_not_convert(model)

    def convert(self, model: Any, only: Any = None) -> None:
        """Also the embeddings, if they are included or a map names them; tied ones only if they may become two."""
        config = self.quantization_config
        is_included = config.include_input_output_embeddings
        if is_included and only is None:
            if tied_weights(model) and not config.untie_embedding_weights:
                raise ValueError(
                    "include_input_output_embeddings: embeddings and head are tied: set untie_embedding_weights=True"
                )
            self.shared = tied_weights(model)
            model.config.tie_word_embeddings = False
        embedding = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is embedding)
        quant_type = config.type_of(name, self.prefix + name, is_named=only is None and not is_included)
        skipped = self.get_modules_to_not_convert(model) if only is None else ()
        stays = any(names_module(entry, name) for entry in skipped) or bool(tied_weights(model))
        if quant_type is not None and (not stays if only is None else name in only):
            kind = quant_type["_type"]
            if type(embedding) is not nn.Embedding or kind == "Int4WeightOnlyConfig":
                found = f"{type(embedding).__name__}, {kind}"
                raise ValueError(f"include_input_output_embeddings: {name} ({found}) has no codes, in torchao neither")
            table = TorchAoEmbedding(embedding, config, quant_type)
            if (columns := table.in_features) % table.group_size:
                raise ValueError(
                    f"{name} has {columns} columns, not a multiple of {kind}'s groups of {table.group_size}"
                )
            with torch.device("meta"):
                table.hold(table.empty_tensors())
            set_module(model, name, table)
        super().convert(model, only)

    def update_expected_keys(self, model: Any, expected_keys: list[str], loaded_keys: list[str]) -> list[str]:
        """A head that was tied has no weight of its own in the file."""
        shared = getattr(self, "shared", {}).keys() - set(loaded_keys)
        expected_keys = super().update_expected_keys(model, expected_keys, loaded_keys)
        return [key for key in expected_keys if key not in shared]

    def create_quantized_param(
        self, model: Any, param_value: Tensor, param_name: str, target_device: Any, state_dict: dict[str, Any]
    ) -> None:
        """Also the tensor of a head that was tied, which the file does not have."""
        shared = getattr(self, "shared", {}).items()
        for key in (param_name, *(head for head, source in shared if source == param_name and head not in state_dict)):
            super().create_quantized_param(model, param_value, key, target_device, state_dict)

    def file_metadata(self, model: Any) -> dict[str, str]:
        """What torchao wants in the header of a file: of each tensor of the model, its class and how it is made."""
        layers = packed_layers(model)
        found = {f"{name}.weight": layer.header(model.dtype) for name, layer in layers.items()}
        packed = {f"{name}.{tensor}" for name, layer in layers.items() for tensor in layer.names}
        plain = {name: json.dumps({"_type": "Tensor"}) for name in model.state_dict() if name not in packed}
        return {**found, **plain, "tensor_names": json.dumps([*found, *plain])}
