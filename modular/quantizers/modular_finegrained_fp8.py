"""FP8 in blocks: weights and inputs as float8_e4m3fn, a scale for each block (DeepSeek-V3, arxiv.org/abs/2412.19437, §3.3.2).

| | |
|---|---|
| `weight` | float8_e4m3fn [N, K] |
| `weight_scale_inv` | float32, or float8_e8m0fnu for `scale_fmt="ue8m0"`: [⌈N / n⌉, ⌈K / k⌉] for blocks of n × k, or one number; |
| | read too: other floating-point types, and uint8, the bytes of float8_e8m0fnu |
| `activation_scale` | float32, one number; `activation_scheme="static"` only |
| W | code · scale of its block |
| x | rounded to float8: code · scale, of k columns of a token (largest magnitude / 448) or `activation_scale` |
| sums | float32 |

Blocks of 1 × 32 with `ue8m0` scales are the MXFP8 of the Open Compute Project (its specification, version 1.0, §5.1).
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

from unibody.core.quantization.config import QuantizationConfigMixin, has_type, require_choice
from unibody.core.quantization.float8 import round_to_float8
from unibody.core.quantization.float8_linear import Float8Linear
from unibody.core.quantization.linear import DequantizedMatmul
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import names_module
from unibody.core.quantization.schemes import in_blocks

__all__ = ["FP8Linear", "FineGrainedFP8Config", "FineGrainedFP8HfQuantizer", "calibrate"]

SCALES = {"float": torch.float32, "ue8m0": torch.float8_e8m0fnu}
OTHERS = {"weight_scale": "weight_scale_inv", "input_scale": "activation_scale"}  # names of the same elsewhere


@dataclass(eq=False)
class FineGrainedFP8Config(QuantizationConfigMixin):
    """The blocks (None: one for the whole weight), and how inputs get their scales."""

    quant_method: ClassVar[str] = "fp8"
    loading_attributes: ClassVar[tuple[str, ...]] = ("dequantize",)
    ignored_keys: ClassVar[tuple[str, ...]] = ("fmt",)  # always e4m3

    activation_scheme: str = "dynamic"
    weight_block_size: Any = (128, 128)
    modules_to_not_convert: list[str] | None = None
    _: KW_ONLY
    dequantize: bool = False
    modules_to_convert: list[str] | None = None
    scale_fmt: str = "float"
    expert_dtype: str = "fp8"

    def post_init(self) -> None:
        self.activation_scheme = str(self.activation_scheme).lower()
        require_choice(self, "activation_scheme", ("dynamic", "static"))
        require_choice(self, "scale_fmt", SCALES)
        require_choice(self, "expert_dtype", ("fp8", "fp4"))
        if self.expert_dtype != "fp8":
            warnings.warn(
                "FineGrainedFP8Config: expert_dtype changes nothing: no model here has experts", stacklevel=4
            )
        size = self.weight_block_size
        is_pair = isinstance(size, (list, tuple)) and len(size) == 2
        if size is not None and not (is_pair and all(has_type(n, int) and n > 0 for n in size)):
            raise ValueError(f"FineGrainedFP8Config: weight_block_size is {size!r}, expected two positive numbers")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """`ignored_layers` is another name of `modules_to_not_convert`."""
        renamed = {"ignored_layers": "modules_to_not_convert"}
        config_dict = {renamed.get(key, key): value for key, value in config_dict.items()}
        return super().from_dict(config_dict, return_unused_kwargs, **kwargs)


class FP8Linear(Float8Linear):
    """A linear layer whose weight is float8 in blocks, and whose inputs are rounded to it."""

    scale_name: ClassVar[str] = "weight_scale_inv"

    def __init__(self, linear: nn.Linear, config: FineGrainedFP8Config) -> None:
        super().__init__(linear, config)
        rows, columns = config.weight_block_size or (self.out_features, self.in_features)
        self.block = rows, columns

    def fits(self) -> bool:
        """Whether the weight is made of whole blocks."""
        return self.out_features % self.block[0] == 0 and self.in_features % self.block[1] == 0

    def scale_shape(self) -> list[int]:
        sizes = zip((self.out_features, self.in_features), self.block, strict=True)
        return [-(-size // block) for size, block in sizes] if self.config.weight_block_size else []

    def empty_tensors(self) -> dict[str, Tensor]:
        found = {
            "weight": torch.empty(self.out_features, self.in_features, dtype=torch.float8_e4m3fn),
            "weight_scale_inv": torch.empty(self.scale_shape(), dtype=SCALES[self.config.scale_fmt]),
        }
        static = {"activation_scale": torch.empty(())}
        return found | static if self.config.activation_scheme == "static" else found

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        blocks = self.config.weight_block_size is not None
        shared: dict[str, int | None] = {"activation_scale": None}
        rows = {"weight": 0, "weight_scale_inv": 0 if blocks else None, **shared}
        columns = {"weight": 1, "weight_scale_inv": 1 if blocks else None, **shared}
        # Without blocks all of a token is rounded by its largest magnitude.
        return rows, columns if blocks or self.config.activation_scheme == "static" else {}

    def part_multiples(self) -> tuple[int, int]:
        return self.block if self.config.weight_block_size else (1, 1)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """The inverse of a scale is rounded before the scale is, as the reference does."""
        blocks = in_blocks(weight.float(), self.block)
        largest = blocks.abs().amax((1, 3), keepdim=True)
        inverse = 448 / torch.where(largest == 0, 448, largest)
        if self.config.scale_fmt == "ue8m0":
            inverse = torch.exp2(torch.floor(torch.log2(inverse)))
        scale = (1 / inverse).view(self.scale_shape())
        codes = round_to_float8(blocks * inverse).view(weight.shape)
        found = {"weight": codes, "weight_scale_inv": scale.to(SCALES[self.config.scale_fmt])}
        one = {"activation_scale": torch.ones((), device=weight.device)}
        return found | one if self.config.activation_scheme == "static" else found

    def float8_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, width = x.float(), self.block[1]
        if self.config.activation_scheme == "static":
            scale = self.stored_tensors()["activation_scale"]
            return round_to_float8(x / scale), scale
        blocks = F.pad(x, (0, -x.shape[-1] % width)).unflatten(-1, (-1, width))
        scales = blocks.abs().amax(-1) / 448
        codes = round_to_float8(blocks / scales.clamp(min=1e-12)[..., None])
        return codes.flatten(-2)[..., : x.shape[-1]], scales


@contextmanager
def calibrate(model: Any) -> Iterator[None]:
    """While it is entered, layers with static inputs learn the largest magnitude of these, from which their scale follows.

    None is rounded meanwhile: a layer is not to learn from what another one has cut off.
    """
    layers = [layer for layer in packed_layers(model).values() if "activation_scale" in layer.names]
    if not layers:
        raise ValueError("calibrate: no inputs of this model's layers have a static scale: see activation_scheme")
    largest: dict[Any, Tensor] = {}

    def learn(layer: Any, inputs: Any, _: Tensor) -> Any:
        found = inputs[0].detach().abs().amax().float()
        largest[layer] = torch.maximum(found, largest.get(layer, found))
        return DequantizedMatmul.apply(inputs[0], layer.bias, layer)

    hooks = [layer.register_forward_hook(learn) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for layer, magnitude in largest.items():
        layer.hold({**layer.stored_tensors(), "activation_scale": magnitude.clamp(min=1e-12) / 448})


class FineGrainedFP8HfQuantizer(HfQuantizer):
    """Reads and makes float8 layers; those that are no whole blocks stay plain."""

    auto_quantizer: ClassVar[str] = "fp8"
    linear_class: ClassVar[Any] = FP8Linear
    packed_tensor: ClassVar[str] = "weight_scale_inv"

    def preprocess_model(self, model: Any, dtype: Any = None, loaded_keys: Any = (), **kwargs: Any) -> None:
        """Refuses the names that AutoFP8 and vLLM have for the same tensors: transformers does not read these either."""
        if self.pre_quantized and (found := sorted({key.rpartition(".")[2] for key in loaded_keys} & OTHERS.keys())):
            renamed = ", ".join(f"{name} to {OTHERS[name]}" for name in found)
            raise ValueError(
                f"the checkpoint has {', '.join(found)}, names of AutoFP8 and vLLM: rename {renamed} in its files, and in "
                "its quantization_config set weight_block_size to null, if a weight has one scale"
            )
        super().preprocess_model(model, dtype=dtype, loaded_keys=loaded_keys, **kwargs)

    def means(self, name: str, linear: nn.Linear) -> bool:
        only = self.quantization_config.modules_to_convert
        return only is None or any(names_module(entry, name, self.prefix + name) for entry in only)

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers that are no whole blocks."""
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        if self.quantization_config.activation_scheme == "static" and not self.pre_quantized:
            warnings.warn("static: the scales of inputs are 1 until calibrate(model) has learned them", stacklevel=4)
        model = super().postprocess_model(model, **kwargs)
        return self.dequantize(model) if self.quantization_config.dequantize else model
