"""FP8 in blocks: weights and inputs as float8_e4m3fn, a scale for each block (DeepSeek-V3, arxiv.org/abs/2412.19437, §3.3.2).

| | |
|---|---|
| `weight` | float8_e4m3fn [N, K] |
| `weight_scale_inv` | float32, or float8_e8m0fnu for `scale_fmt="ue8m0"`: [⌈N / n⌉, ⌈K / k⌉] for blocks of n × k, or one number |
| `activation_scale` | float32, one number; `activation_scheme="static"` only |
| W | code · scale of its block |
| x | rounded to float8: code · scale, of k columns of a token (largest magnitude / 448) or `activation_scale` |
| sums | float32 |

Blocks of 1 × 32 with `ue8m0` scales are the MXFP8 of the Open Compute Project (its specification, version 1.0, §5.1).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.config import QuantizationConfigMixin, has_type, require_choice
from unibody.core.quantization.float8 import float8_as_half, float8_product, round_to_float8, widen_float8
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.replacement import names_module

__all__ = ["FP8Linear", "FineGrainedFP8Config", "FineGrainedFP8HfQuantizer"]

SCALES = {"float": torch.float32, "ue8m0": torch.float8_e8m0fnu}


@dataclass(eq=False)
class FineGrainedFP8Config(QuantizationConfigMixin):
    """The blocks (None: one for the whole weight), and how inputs get their scales."""

    quant_method: ClassVar[str] = "fp8"
    loading_attributes: ClassVar[tuple[str, ...]] = ("dequantize",)
    ignored_keys: ClassVar[tuple[str, ...]] = ("fmt",)  # always e4m3

    activation_scheme: str = "dynamic"
    weight_block_size: Any = (128, 128)
    dequantize: bool = False
    modules_to_not_convert: list[str] | None = None
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
        names = {"ignored_layers": "modules_to_not_convert"}
        values = {names.get(key, key): value for key, value in config_dict.items()}
        return super().from_dict(values, return_unused_kwargs, **kwargs)


def rounded_matmul(layer: Any, x: Tensor) -> Tensor:
    """The reference: the numbers that the codes of input and weight stand for, multiplied in float32.

    Scales that many rows share go to the inputs, and those of whole rows to the outputs: both are fewer than the weight's numbers.
    """
    inputs, stored, (height, width) = layer.read_inputs(x), layer.stored_tensors(), layer.block
    codes, scales = stored["weight"], layer.read_scales(stored)
    if scales.dim() == 0 or width >= layer.in_features:
        rows = scales.view(-1).repeat_interleave(height)[: layer.out_features] if scales.dim() else scales
        y = float8_product(inputs, codes) * rows
    elif height >= 32:
        columns = scales.repeat_interleave(width, 1)[:, : layer.in_features]
        blocks = zip(columns, codes.split(height), strict=True)
        y = torch.cat([float8_product(inputs * scale, some) for scale, some in blocks], -1)
    else:
        starts = range(0, layer.out_features, step := max(1, 2**18 // layer.in_features))
        y = torch.cat([F.linear(inputs, layer.read_rows(stored, start, start + step)) for start in starts], -1)
    return (y if layer.bias is None else y + layer.bias.float()).to(x.dtype)


def scaled_matmul(layer: Any, x: Tensor) -> Tensor:
    """torch's product of float8 rows, a scale for each token and each output."""
    rows, stored = x.reshape(-1, x.shape[-1]), layer.stored_tensors()
    codes, scales = layer.round_inputs(rows)
    tokens = scales.float().expand(len(rows), 1).contiguous()
    outputs = layer.read_scales(stored).view(1, -1).expand(1, layer.out_features).contiguous()
    y = torch._scaled_mm(codes, stored["weight"].t(), tokens, outputs, out_dtype=x.dtype)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


class FP8Linear(PackedLinear):
    """A linear layer whose weight is float8 in blocks, and whose inputs are rounded to it."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "scaled_mm",
            entry=scaled_matmul,
            device="cuda",
            capability=(8, 9),
            dtypes=("bfloat16",),
            multiples=(16, 16),
        ),
        Kernel("triton", template="float8_matmul.triton.py.j2", device="cuda", package="triton"),
        Kernel("torch", entry=rounded_matmul),
    )

    scale_name: ClassVar[str] = "weight_scale_inv"

    def __init__(self, linear: nn.Linear, config: FineGrainedFP8Config) -> None:
        super().__init__(linear, config)
        self.block = self.block_size()

    def block_size(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        rows, columns = self.config.weight_block_size or (self.out_features, self.in_features)
        return rows, columns

    def empty_tensors(self) -> dict[str, Tensor]:
        shape = (self.out_features, self.in_features)
        blocks = [-(-size // block) for size, block in zip(shape, self.block, strict=True)]
        blocks = blocks if self.config.weight_block_size else []
        found = {
            "weight": torch.empty(shape, dtype=torch.float8_e4m3fn, device="meta"),
            "weight_scale_inv": torch.empty(blocks, dtype=SCALES[self.config.scale_fmt], device="meta"),
        }
        static = {"activation_scale": torch.empty((), device="meta")}
        return found | static if self.config.activation_scheme == "static" else found

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """The inverse of a scale is rounded before the scale is, as the reference does."""
        (rows, columns), shape = self.block, weight.shape
        blocks = weight.float().view(shape[0] // rows, rows, shape[1] // columns, columns)
        largest = blocks.abs().amax((1, 3), keepdim=True)
        inverse = 448 / torch.where(largest > 0, largest, 448)
        if self.config.scale_fmt == "ue8m0":
            inverse = torch.exp2(torch.floor(torch.log2(inverse)))
        scale = (1 / inverse).view(self.empty_tensors()["weight_scale_inv"].shape)
        codes = round_to_float8(blocks * inverse).view(shape)
        found = {"weight": codes, "weight_scale_inv": scale.to(SCALES[self.config.scale_fmt])}
        one = {"activation_scale": torch.ones((), device=weight.device)}
        return found | one if self.config.activation_scheme == "static" else found

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return self.read_rows(stored, 0, self.out_features).to(dtype)

    def read_rows(self, stored: dict[str, Tensor], start: int, stop: int) -> Tensor:
        """Some rows of the weight, in float32."""
        values, scale = float8_as_half(stored["weight"][start:stop]), 256 * self.read_scales(stored)
        if scale.dim() == 0:
            return values.float() * scale
        rows, width = torch.arange(start, start + len(values), device=scale.device), self.block[1]
        whole = F.pad(values, (0, -self.in_features % width)) if self.in_features % width else values
        blocks = whole.unflatten(1, (-1, width)) * scale[rows // self.block[0], :, None]
        return blocks.flatten(1)[:, : self.in_features]

    def read_scales(self, stored: dict[str, Tensor]) -> Tensor:
        """The scales of the weight's blocks in float32; a number, if there is one block."""
        return stored[self.scale_name].float()

    def read_inputs(self, x: Tensor) -> Tensor:
        """What the rounded inputs stand for, in float32."""
        codes, scales = self.round_inputs(x)
        blocks = scales.repeat_interleave(self.block[1], -1)[..., : x.shape[-1]] if scales.dim() else scales
        return widen_float8(codes).float() * blocks

    def round_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes [..., K] of inputs and their scales [..., ⌈K / k⌉], or the one that the checkpoint has."""
        x, width = x.float(), self.block[1]
        if self.config.activation_scheme == "static":
            scale = self.stored_tensors()["activation_scale"]
            return round_to_float8(x / scale), scale
        blocks = F.pad(x, (0, -x.shape[-1] % width)).unflatten(-1, (-1, width))
        scales = blocks.abs().amax(-1) / 448
        codes = round_to_float8(blocks / scales.clamp(min=1e-12)[..., None])
        return codes.flatten(-2)[..., : x.shape[-1]], scales

    def why_not(self, kernel: Kernel) -> str:
        height, width = self.block
        whole = width >= self.in_features
        if kernel.name == "scaled_mm" and not (whole and (height == 1 or height >= self.out_features)):
            return f"it takes a scale for each row, and these are of blocks of {height} x {width}"
        if kernel.name == "triton" and width % 32 and not whole:
            return f"its blocks are {width} columns wide, not a multiple of 32"
        return ""


class FineGrainedFP8HfQuantizer(HfQuantizer):
    """Reads and makes float8 layers; those that are no whole blocks stay plain."""

    auto_quantizer: ClassVar[str] = "fp8"
    linear_class: ClassVar[Any] = FP8Linear
    packed_tensor: ClassVar[str] = "weight_scale_inv"

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        only, layer = self.quantization_config.modules_to_convert, self.linear_class(linear, self.quantization_config)
        if only is not None and not any(names_module(entry, name) for entry in only):
            return None
        divides = linear.out_features % layer.block[0] == 0 and linear.in_features % layer.block[1] == 0
        return layer if self.pre_quantized or divides else None

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        model = super().postprocess_model(model, **kwargs)
        return self.dequantize(model) if self.quantization_config.dequantize else model
