"""BitNet b1.58: weights of −1, 0 and 1, inputs of eight bits (2402.17764, §2; 2310.11453, §2).

| `bitlinear`, and `autobitlinear` offline | |
|---|---|
| `weight` | uint8 [N / 4, K]: four slabs of rows, two bits each, the first in the lowest; code − 1 is T, one of −1, 0 and 1 |
| `weight_scale` | one number: W = T / weight_scale for `bitlinear`, T · weight_scale for `autobitlinear` |
| `rms_norm.weight` | [K]; `use_rms_norm` only |
| x | int8 codes; each token's largest magnitude becomes 127 |
| sums | int32 |

| `autobitlinear` online | |
|---|---|
| `weight` | [N, K], which is trained; T · m in every forward pass, T = W / m, rounded; m is W's mean magnitude |
| x | as above; gradients pass through roundings as if there were none |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.int8 import int8_product
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.replacement import linears_to_convert, owner, set_module
from unibody.core.quantization.slabs import pack_slabs, unpack_slabs

__all__ = ["AutoBitLinear", "BitLinear", "BitNetHfQuantizer", "BitNetQuantConfig"]

SHIFTS = (0, 2, 4, 6)  # of the slabs in a byte


@dataclass(eq=False)
class BitNetQuantConfig(QuantizationConfigMixin):
    """Which of the two layers, whether its weights are rounded already, and whether inputs are normalized first."""

    quant_method: ClassVar[str] = "bitnet"

    modules_to_not_convert: list[str] | None = None
    linear_class: str = "bitlinear"
    quantization_mode: str = "offline"
    use_rms_norm: bool = False
    rms_norm_eps: float = 1e-6

    def post_init(self) -> None:
        require_choice(self, "linear_class", ("bitlinear", "autobitlinear"))
        require_choice(self, "quantization_mode", ("online", "offline"))
        if self.linear_class == "bitlinear" and self.quantization_mode == "online":
            raise ValueError(
                "BitNetQuantConfig: weights of linear_class 'bitlinear' are rounded before they are stored: "
                "set quantization_mode='offline', or linear_class='autobitlinear'"
            )


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """−1, 0 and 1 [N, K], and the weight's mean magnitude, both in float32 (2402.17764, equations 1 to 3)."""
    weight = weight.float()
    mean = weight.abs().mean().clamp(min=1e-5)
    return (weight / mean).round().clamp(-1, 1), mean


def round_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes from −128 to 127 of x [..., K] and what it was multiplied by, [..., 1]; both in the type of x."""
    factors = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (x * factors).round().clamp(-128, 127), factors


def normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in float32, rounded to the type of x before the weight [K] multiplies it."""
    return F.rms_norm(x.float(), weight.shape, eps=eps).to(x.dtype) * weight.to(x.dtype)


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, to the bit, with the gradient of the others (1308.3432)."""
    return rounded.detach() + (values - values.detach())


def ternary_matmul(layer: Any, x: Tensor) -> Tensor:
    """The product of codes, slab by slab of the weight's rows: a code is T + 1, so that the sum of the inputs' goes off."""
    codes, factors = layer.rounded_tokens(x.reshape(-1, x.shape[-1]))
    codes, words = codes.to(torch.int8), layer.stored_tensors()["weight"]
    slabs = [int8_product(codes, (words >> shift & 3).view(torch.int8)) for shift in SHIFTS]
    sums = torch.cat(slabs, 1) - codes.sum(1, keepdim=True, dtype=torch.int32)
    y = sums * (layer.scale() / factors.float())
    y = y if layer.bias is None else y + layer.bias.float()
    return y.to(x.dtype).view(*x.shape[:-1], -1)


class BitLinear(PackedLinear):
    """A linear layer of ternary weights and int8 inputs."""

    slabs: ClassVar[int] = 4  # of rows, each of which has its bits in a byte
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton",
            template="int8_matmul.triton.py.j2",
            device="cuda",
            capability=(8, 0),  # Triton's products of int8
            package="triton",
        ),
        Kernel("torch", entry=ternary_matmul),
    )

    def empty_tensors(self) -> dict[str, Tensor]:
        words = torch.empty(self.out_features // 4, self.in_features, dtype=torch.uint8)
        found = {"weight": words, "weight_scale": torch.empty(1)}
        norm = {"rms_norm.weight": torch.empty(self.in_features)}
        return found | norm if self.config.use_rms_norm else found

    def usual_tensors(self) -> dict[str, Tensor]:
        return {"rms_norm.weight": torch.ones(self.in_features)}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        rounded, mean = ternary(weight)
        scale = mean if self.config.linear_class == "autobitlinear" else 1 / mean
        found = {"weight": pack_slabs(rounded + 1, SHIFTS, torch.uint8), "weight_scale": scale.reshape(1)}
        norm = {"rms_norm.weight": torch.ones(self.in_features, dtype=weight.dtype, device=weight.device)}
        return found | norm if self.config.use_rms_norm else found

    def scale(self) -> Tensor:
        """The magnitude of the weights that are not 0, [1], in float32."""
        stored = self.stored_tensors()["weight_scale"].float()
        return stored if self.config.linear_class == "autobitlinear" else 1 / stored

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes = unpack_slabs(stored["weight"], SHIFTS, 2)
        return ((codes.float() - 1) * self.scale()).to(dtype)

    def rounded_tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the two layers, one rounds in float32, as in training, the other in the type of its inputs."""
        return round_tokens(x.float() if self.config.linear_class == "autobitlinear" else x)

    def int8_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        codes, factors = self.rounded_tokens(rows)
        return codes.to(torch.int8), 1 / factors.float().flatten()

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        """The bytes of the codes, and the one scale for every row."""
        return self.stored_tensors()["weight"], self.scale().expand(self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.use_rms_norm:
            x = normalize(x, self.stored_tensors()["rms_norm.weight"], self.config.rms_norm_eps)
        if x.requires_grad and torch.is_grad_enabled():
            codes, factors = self.rounded_tokens(x)
            x = straight_through(x, (codes / factors).to(x.dtype))
        return super().forward(x)


class AutoBitLinear(nn.Linear):
    """A linear layer whose weight and inputs are rounded in every forward pass: for training that knows of the rounding."""

    kernel: ClassVar[str] = "torch"  # it multiplies as plain layers do

    def __init__(self, linear: nn.Linear, config: BitNetQuantConfig) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.config, self.weight, self.bias = config, linear.weight, linear.bias
        self.rms_norm: Any = None
        if config.use_rms_norm:
            self.rms_norm = nn.RMSNorm(self.in_features, config.rms_norm_eps, device=linear.weight.device)

    def stored_tensors(self) -> dict[str, Tensor]:
        """The weight as a checkpoint has it: not rounded yet."""
        return {"weight": self.weight}

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the weight is rounded to."""
        rounded, mean = ternary(self.weight.detach())
        return (rounded * mean).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.rms_norm is None else normalize(x, self.rms_norm.weight, self.rms_norm.eps)
        codes, factors = round_tokens(x.float())
        weight = straight_through(self.weight, self.dequantize(self.weight.dtype))
        return F.linear(straight_through(x, (codes / factors).to(x.dtype)), weight, self.bias)


class BitNetHfQuantizer(HfQuantizer):
    """Reads and makes packed layers, or puts rounding ones in the places of linear ones."""

    auto_quantizer: ClassVar[str] = "bitnet"
    linear_class: ClassVar[Any] = BitLinear
    packed_tensor: ClassVar[str] = "weight_scale"

    def means(self, name: str, linear: nn.Linear) -> bool:
        return not isinstance(linear, AutoBitLinear)  # which rounds already

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        return None if linear.out_features % 4 else self.linear_class(linear, self.quantization_config)

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        if self.quantization_config.quantization_mode == "offline":
            super()._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)
            return
        for name, linear in linears_to_convert(model, self.get_modules_to_not_convert(model)).items():
            set_module(model, name, AutoBitLinear(linear, self.quantization_config))

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Where plain weights are read, norms before layers begin as ones."""
        for entry in missing_keys:
            norm, name = owner(model, entry)
            if entry.endswith(".rms_norm.weight") and isinstance(norm, nn.RMSNorm):
                setattr(norm, name, nn.Parameter(torch.ones(norm.normalized_shape, dtype=self.dtype)))
        missing = super().update_missing_keys(model, missing_keys, prefix)
        return [key for key in missing if not key.endswith(".rms_norm.weight")]

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers whose rows are not in fours."""
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))

    def dequantize(self, model: Any) -> Any:
        """Refused where inputs are normalized: a plain linear layer does not do that."""
        if self.quantization_config.use_rms_norm:
            raise ValueError("BitNet layers with use_rms_norm=True normalize their inputs, which plain ones cannot")
        for name, layer in dict(model.named_modules()).items():
            if isinstance(layer, AutoBitLinear):
                linear = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
                linear.weight, linear.bias = nn.Parameter(layer.dequantize(layer.weight.dtype)), layer.bias
                set_module(model, name, linear)
        return super().dequantize(model)
