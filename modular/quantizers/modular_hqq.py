"""HQQ, half-quadratic quantization: groups whose zero points minimise a norm of the error, without data (mobiusml.github.io/hqq_blog).

| | |
|---|---|
| weight | W = (code − zero) · scale, codes of 8, 4, 3, 2 or 1 bits |
| groups | W [N, K] as [−1, g] (`axis` 1: of a row) or as [g, −1] (`axis` 0), in the order of memory |
| `W_q` | slabs of the groups' rows, the first in the highest bits of uint8; 3 bits: ten slabs in int32, the first at bit 27 |
| `scale`, `zero` | [groups, 1] or [1, groups], in the type of computation |
| `nbits`, `group_size`, `axis`, `shape`, … | how the layer was made, each a tensor; texts as uint8 |
| arithmetic | in the type of the inputs, or the wider one of the scales |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.half_quadratic import solve_groups
from unibody.core.quantization.int8_groups import Int8GroupsLayout, int8_groups_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.slabs import pack_slabs, read_slabs, unpack_slabs

__all__ = ["HQQLinear", "HqqConfig", "HqqHfQuantizer"]

SETTINGS = "nbits", "group_size", "axis", "view_as_float"
SHIFTS = {8: (0,), 4: (4, 0), 3: tuple(range(27, -1, -3)), 2: (6, 4, 2, 0), 1: tuple(range(7, -1, -1))}


@dataclass(eq=False)
class HqqConfig(QuantizationConfigMixin):
    """How a model's layers are to be quantized; a checkpoint's layers say it themselves."""

    quant_method: ClassVar[str] = "hqq"

    nbits: int = 4
    group_size: int | None = 64  # None: a whole row or column
    view_as_float: bool = False  # `W_q` is stored as numbers of the type of computation, bit for bit
    axis: int | None = None  # None: 1
    dynamic_config: dict[str, dict[str, Any]] | None = None  # by the ends of names; layers not named stay plain
    skip_modules: list[str] = field(default_factory=lambda: ["lm_head"])

    def post_init(self) -> None:
        self.axis = 1 if self.axis is None else self.axis
        require_choice(self, "nbits", SHIFTS)
        require_choice(self, "axis", (0, 1))
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"HqqConfig: group_size is {self.group_size!r}, expected a number of weights, or None")
        for name, options in (self.dynamic_config or {}).items():
            try:
                HqqConfig(**options)
            except (TypeError, ValueError) as error:
                raise ValueError(f"HqqConfig: dynamic_config of {name!r}: {error}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Also from the nested form of the JSON."""
        config_dict = dict(config_dict)
        nested = config_dict.pop("quant_config", None)

        def flat(entry: dict[str, Any]) -> dict[str, Any]:
            found = entry["weight_quant_params"]
            return {name: found[name] for name in SETTINGS if name in found}

        if nested is not None and "weight_quant_params" in nested:
            config_dict |= flat(nested)
        elif nested is not None:
            config_dict["dynamic_config"] = {name: flat(entry) for name, entry in nested.items()}
        return super().from_dict(config_dict, return_unused_kwargs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The keys of the JSON, which nests the settings."""

        def nested(config: HqqConfig) -> dict[str, Any]:
            weight = {name: getattr(config, name) for name in SETTINGS}
            weight |= {"channel_wise": True, "optimize": True, "round_zero": config.nbits == 4}
            others = {"scale_quant_params": None, "zero_quant_params": None, "offload_meta": False}
            return {"weight_quant_params": weight, **others}

        layers = {name: nested(HqqConfig(**options)) for name, options in (self.dynamic_config or {}).items()}
        kernel = {} if self.kernel is None else {"kernel": self.kernel}
        values = {"quant_config": layers or nested(self), "quant_method": "hqq", "skip_modules": self.skip_modules}
        return {**values, **kernel}


class HQQLinear(GroupwiseLinear):
    """A linear layer of HQQ's codes; what a checkpoint says of the layer goes before the configuration."""

    variable_tensors: ClassVar[tuple[str, ...]] = ("",)
    packing: ClassVar[Packing] = Packing(word="int32", zero_point="number")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            multiples=(1, 32),
        ),
        Kernel(
            "int8_groups_cpu",
            entry=int8_groups_matmul,
            layout=Int8GroupsLayout,
            device="cpu",
            dtypes=("bfloat16",),
            bits=(8,),
        ),
        *GroupwiseLinear.kernels,
    )

    def __init__(self, linear: nn.Linear, config: HqqConfig) -> None:
        whole = (linear.out_features, linear.in_features)[config.axis or 0]
        super().__init__(linear, config, config.nbits, config.group_size or whole)
        self.axis = config.axis or 0
        self.settings: dict[str, Tensor] = {}

    def empty_tensors(self) -> dict[str, Tensor]:
        """Of the sizes that the configuration implies, for device maps; a checkpoint's may be others."""
        groups = self.out_features * self.in_features // self.group_size
        rows, columns = (groups, self.group_size) if self.axis == 1 else (self.group_size, groups)
        words = torch.int32 if self.bits == 3 else torch.uint8
        weight = torch.empty(-(-rows // len(SHIFTS[self.bits])), columns, dtype=words)
        scale, zero = (torch.empty(groups, dtype=torch.float16).unsqueeze(self.axis) for _ in range(2))
        return {"W_q": weight, "scale": scale, "zero": zero, **self.describe(torch.float16)}

    def describe(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a checkpoint says of the layer."""
        numbers = {"nbits": self.bits, "group_size": self.group_size, "axis": self.axis}
        flags = {"view_as_float": self.config.view_as_float, "round_zero": self.bits == 4}
        flags |= dict.fromkeys(("channel_wise", "encoded_state_dict", "optimize", "stores_quant_config"), True)
        flags |= dict.fromkeys(("offload_meta", "quant_scale", "quant_zero"), False)
        texts = {
            "packing": f"{self.bits}bit_{'32' if self.bits == 3 else 'u8'}",
            "unpack_view_dtype": "torch.int32" if self.bits == 3 else "torch.uint8",
            "compute_dtype": str(dtype),
        }
        return {
            "shape": torch.tensor([self.out_features, self.in_features]),
            **{name: torch.tensor(value, dtype=torch.int32) for name, value in numbers.items()},
            **{name: torch.tensor(value, dtype=torch.uint8) for name, value in flags.items()},
            **{name: torch.tensor(list(text.encode()), dtype=torch.uint8) for name, text in texts.items()},
        }

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        if layout is None and tensors:
            self.settings = {k: tensor for k, tensor in tensors.items() if k not in ("W_q", "scale", "zero")}
            if not any(self.settings[name].is_meta for name in ("nbits", "group_size", "axis")):
                self.bits, self.group_size = int(self.settings["nbits"]), int(self.settings["group_size"])
                self.axis = int(self.settings["axis"])

    def why_not(self, kernel: Kernel) -> str:
        rows = self.axis == 1 and self.in_features % self.group_size == 0
        return "" if rows or not kernel.layout else "its groups are parts of rows, and these are not"

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        shape = (-1, self.group_size) if self.axis == 1 else (self.group_size, -1)
        codes, scale, zero = solve_groups(weight.float().reshape(shape), self.bits, self.axis)
        self.settings = {name: tensor.to(weight.device) for name, tensor in self.describe(weight.dtype).items()}
        return self.pack_groups(codes, scale.to(weight.dtype), zero.to(weight.dtype))

    def pack_groups(self, codes: Tensor, scale: Tensor, zero: Tensor) -> dict[str, Tensor]:
        """The tensors of a checkpoint for codes [groups, g] or [g, groups]."""
        words = pack_slabs(codes, SHIFTS[self.bits], torch.int32 if self.bits == 3 else torch.uint8)
        words = words.view(scale.dtype) if self.settings["view_as_float"] else words
        return {"W_q": words, "scale": scale, "zero": zero, **self.settings}

    def words(self, stored: dict[str, Tensor]) -> tuple[Tensor, int]:
        """The slabs' words, and the rows of groups [groups, g] or [g, groups] in them, without those that fill up the last."""
        count = self.out_features * self.in_features // self.group_size if self.axis == 1 else self.group_size
        return stored["W_q"].view(torch.int32 if self.bits == 3 else torch.uint8), count

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """One slab after the other, which stays in the cache."""
        wide = torch.promote_types(
            stored["scale"].dtype, dtype
        )  # that of the model where it was quantized, as hqq does
        words, count = self.words(stored)
        zero, scale = (stored[name].to(wide).expand(count, -1) for name in ("zero", "scale"))
        weight, start = zero.new_empty(count, words.shape[1]), 0
        for codes in read_slabs(words, SHIFTS[self.bits], self.bits):
            part = slice(start, start + len(codes))
            torch.sub(codes[: count - start], zero[part], out=weight[part]).mul_(scale[part])
            start += len(codes)
        return weight.view(self.out_features, self.in_features).to(dtype)

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        scales, zeros = (stored[name].view(self.out_features, -1) for name in ("scale", "zero"))
        words, count = self.words(stored)
        codes = unpack_slabs(words, SHIFTS[self.bits], self.bits)[:count]
        return GroupwiseCodes(codes.view(self.out_features, -1), scales, zeros)

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes = weight.codes.reshape(-1, self.group_size)
        return self.pack_groups(codes, weight.scales.reshape(-1, 1), weight.zeros.reshape(-1, 1))


class HqqHfQuantizer(HfQuantizer):
    """Reads and makes HQQ's layers; a checkpoint in hqq's own safetensors form has no configuration and is known by its keys."""

    auto_quantizer: ClassVar[str] = "hqq"
    linear_class: ClassVar[Any] = HQQLinear
    skipped_by: ClassVar[str] = "skip_modules"
    packed_tensor: ClassVar[str] = "W_q"

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        self.pre_quantized = self.pre_quantized or any(key.endswith(".W_q") for key in loaded_keys)
        super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        """The packed layer; None where no entry of `dynamic_config` names it, or the group does not divide the weight."""
        config, dynamic = self.quantization_config, self.quantization_config.dynamic_config
        if dynamic is not None and not self.pre_quantized:
            options = next((v for key, v in dynamic.items() if (self.prefix + name).endswith(key)), None)
            if options is None:
                return None
            config = HqqConfig(**options, kernel=config.kernel)
        layer = self.linear_class(linear, config)
        fits = (layer.out_features, layer.in_features)[layer.axis] % layer.group_size == 0
        return layer if fits or self.pre_quantized else None

    def means(self, name: str, linear: nn.Linear) -> bool:
        """Whether `dynamic_config` names the layer, where there is one."""
        dynamic = self.quantization_config.dynamic_config
        return dynamic is None or (self.prefix + name).endswith(tuple(dynamic))

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers that no group divides."""
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))
