"""Quanto: linear quantization of rows and groups, and of activations where they are calibrated (github.com/huggingface/optimum-quanto).

| `weights` | tensors |
|---|---|
| `int8`, `float8` | `weight._data` int8 or float8_e4m3fn [N, K]; `weight._scale` [N, 1]; W = data · scale |
| `int4`, `int2` | `weight._data._data` uint8: slabs of the groups' rows [N · K / g, g], the first in the lowest bits; |
| | `weight._scale`, `weight._shift` [N · K / g, 1]; W = code · scale − shift |
| all | `input_scale`, `output_scale`: scalars, 1 where nothing is calibrated |
| group g | of a row: all of it below 128 columns, else the first of 128, 96, 64, 32 that divides it |
| scales | in the type of the weight |
| sums | float32, or in the type of the inputs |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.float8 import round_to_float8, widen_float8
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.int8 import int8pack_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import names_module
from unibody.core.quantization.slabs import pack_slabs, unpack_slabs

__all__ = ["QuantoConfig", "QuantoHfQuantizer", "QuantoLinear", "calibrate"]

BITS = {"float8": 8, "int8": 8, "int4": 4, "int2": 2}
TYPES = {"float8": torch.float8_e4m3fn, "int8": torch.int8}
LARGEST = {"float8": 448, "int8": 127}


@dataclass(eq=False)
class QuantoConfig(QuantizationConfigMixin):
    """What weights and activations are rounded to; activations need `calibrate`."""

    quant_method: ClassVar[str] = "quanto"
    written_if_set: ClassVar[tuple[str, ...]] = ("layer_config",)

    weights: str = "int8"
    activations: str | None = None
    modules_to_not_convert: list[str] | None = None
    _: KW_ONLY
    layer_config: dict[str, dict[str, Any]] | None = None  # other types of layers, by name or pattern

    def post_init(self) -> None:
        require_choice(self, "weights", BITS)
        require_choice(self, "activations", (None, *TYPES))
        for name, types in (self.layer_config or {}).items():
            if types.keys() - {"weights", "activations"}:
                raise ValueError(
                    f"QuantoConfig: layer_config of {name!r} is {types}, expected weights and activations"
                )
            try:
                QuantoConfig(**types)
            except (TypeError, ValueError) as error:
                raise ValueError(f"QuantoConfig: layer_config of {name!r}: {error}") from error

    def of_layer(self, *names: str) -> Any:
        """The configuration of the layer that has these names."""
        layers = (self.layer_config or {}).items()
        types = next((types for entry, types in layers if names_module(entry, *names)), None)
        return self if types is None else replace(self, layer_config=None, **types)


class QuantoLinear(GroupwiseLinear):
    """A linear layer of Quanto's codes; its inputs are rounded once they are calibrated."""

    packing: ClassVar[Packing] = Packing(word="int32", zero_point="shift")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            bits=(2, 4),
            multiples=(1, 32),
        ),
        Kernel("triton_int8", template="int8_matmul.triton.py.j2", device="cuda", package="triton", bits=(8,)),
        Kernel(
            "int8pack_cpu", entry=int8pack_matmul, device="cpu", dtypes=("bfloat16",), multiples=(1, 16), bits=(8,)
        ),
        *GroupwiseLinear.kernels,
    )

    def __init__(self, linear: nn.Linear, config: QuantoConfig) -> None:
        width = linear.in_features
        sizes = (size for size in (128, 96, 64, 32) if width >= 128 and width % size == 0)
        super().__init__(linear, config, BITS[config.weights], next(sizes, -1))
        self.kind = config.weights
        self.others: dict[str, Tensor] = {}  # what a kernel's layout does not hold

    def empty_tensors(self) -> dict[str, Tensor]:
        scalar, shape = torch.empty(()), (self.out_features, self.in_features)
        found = {"input_scale": scalar, "output_scale": scalar}
        if self.kind in TYPES:
            found["weight._data"] = torch.empty(shape, dtype=TYPES[self.kind])
            return {**found, "weight._scale": torch.empty(self.out_features, 1)}
        groups = self.out_features * self.in_features // self.group_size
        words = -(-groups * self.bits // 8), self.group_size
        found["weight._data._data"] = torch.empty(words, dtype=torch.uint8)
        return {**found, **{f"weight.{n}": torch.empty(groups, 1) for n in ("_scale", "_shift")}}

    def usual_tensors(self) -> dict[str, Tensor]:
        return {name: torch.ones(()) for name in ("input_scale", "output_scale")}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """In the weight's own type, as the reference does."""
        one = torch.ones((), dtype=weight.dtype, device=weight.device)
        self.others = {"input_scale": one, "output_scale": one.clone()}
        if self.kind in TYPES:
            scale = weight.abs().amax(1, keepdim=True) / LARGEST[self.kind]
            return {**self.others, "weight._data": round_to(weight / scale, self.kind), "weight._scale": scale}
        groups = weight.reshape(-1, self.group_size)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale, shift = (high - low) / (2**self.bits - 1), -low
        codes = ((groups + shift) / scale).round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        return self.pack_codes(GroupwiseCodes(codes, scale, shift))

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        stored = self.stored_tensors()
        return stored["weight._data"], stored["weight._scale"].view(-1)

    def why_not(self, kernel: Kernel) -> str:
        return "it reads int8, not float8" if kernel.name == "int8pack_cpu" and self.kind == "float8" else ""

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        if layout is None:
            self.others = {name: tensor for name, tensor in tensors.items() if not name.startswith("weight")}

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        scale = stored["weight._scale"]
        if self.kind in TYPES:
            data = stored["weight._data"]
            data = widen_float8(data) if self.kind == "float8" else data
            return (data.to(scale.dtype) * scale).to(dtype)
        codes = self.unpack_codes(stored).codes.view(-1, self.group_size)
        weight = codes.to(scale.dtype) * scale - stored["weight._shift"]
        return weight.view(self.out_features, self.in_features).to(dtype)

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        """Shifts stand in the place of zero points."""
        words, rows = stored["weight._data._data"], (self.out_features, -1)
        codes = unpack_slabs(words, range(0, 8, self.bits), self.bits)[: stored["weight._scale"].shape[0]]
        return GroupwiseCodes(codes.view(rows), stored["weight._scale"].view(rows), stored["weight._shift"].view(rows))

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes = weight.codes.reshape(-1, self.group_size)
        return {
            **self.others,
            "weight._data._data": pack_slabs(codes, range(0, 8, self.bits), torch.uint8),
            "weight._scale": weight.scales.reshape(-1, 1),
            "weight._shift": weight.zeros.reshape(-1, 1),
        }

    def offsets(self, scales: Tensor, zeros: Tensor) -> Tensor:
        return 2 ** (self.bits - 1) * scales - zeros

    def zeros(self, scales: Tensor, offsets: Tensor) -> Tensor:
        return 2 ** (self.bits - 1) * scales - offsets

    def forward(self, x: Tensor) -> Tensor:
        """Inputs are rounded if the model is to have rounded activations and this layer's scale is calibrated."""
        if self.config.activations is not None and (scale := self.others["input_scale"]) != 1:
            scale = scale.to(x.dtype)
            x = round_to(x / scale, self.config.activations).to(x.dtype) * scale
        return super().forward(x)


def round_to(values: Tensor, kind: str) -> Tensor:
    """The nearest numbers of a type, int8 or float8, within its range."""
    if kind == "float8":
        return round_to_float8(values)
    return values.round().clamp(-128, 127).to(torch.int8)


@contextmanager
def calibrate(model: Any, momentum: float = 0.9) -> Iterator[None]:
    """While it is entered, the model's layers learn the scales of their inputs, as moving averages of the largest magnitude."""

    def learn(layer: Any, arguments: Any) -> None:
        largest = LARGEST[layer.config.activations]
        scale = arguments[0].detach().abs().amax() / largest
        old = layer.others["input_scale"]
        new = scale if old == 1 else momentum * old + (1 - momentum) * scale
        layer.hold({**layer.stored_tensors(), "input_scale": new.to(old.dtype)})

    layers = [layer for layer in packed_layers(model).values() if layer.config.activations is not None]
    if not layers:
        raise ValueError("calibrate: the model's activations are not to be rounded: see QuantoConfig.activations")
    hooks = [layer.register_forward_pre_hook(learn) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class QuantoHfQuantizer(HfQuantizer):
    """Reads and makes Quanto's layers; a checkpoint of optimum-quanto has no configuration and is known by its keys."""

    auto_quantizer: ClassVar[str] = "quanto"
    linear_class: ClassVar[Any] = QuantoLinear
    packed_tensor: ClassVar[str] = "weight._scale"

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        self.pre_quantized = self.pre_quantized or any(key.endswith(".weight._scale") for key in loaded_keys)
        super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        """The packed layer of the types that it is to have."""
        return self.linear_class(linear, self.quantization_config.of_layer(name, self.prefix + name))

    def quantization_map(self, model: Any) -> dict[str, dict[str, str]]:
        """The types of each layer's weights and activations, in optimum-quanto's names."""
        configs = {name: layer.config for name, layer in packed_layers(model).items()}
        return {
            name: {"weights": f"q{c.weights}", "activations": f"q{c.activations}" if c.activations else "none"}
            for name, c in configs.items()
        }

    def companion_files(self, model: Any) -> dict[str, Any]:
        """What optimum-quanto wants beside a checkpoint."""
        return {"quanto_qmap.json": self.quantization_map(model)}
