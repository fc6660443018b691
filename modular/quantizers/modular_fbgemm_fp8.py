"""FBGEMM FP8: rows of the weight and tokens of the input as float8_e4m3fn, a scale each (github.com/pytorch/FBGEMM, genai).

| | |
|---|---|
| `weight` | float8_e4m3fn [N, K] |
| `weight_scale` | float32 [N, 1]: the row's largest magnitude / 448; W = code · scale |
| x | float8 codes: each token is divided by its largest magnitude / 448, or by `activation_scale_ub` / 448 where that is less |
| sums | float32 |
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.config import QuantizationConfigMixin
from unibody.core.quantization.float8 import round_to_float8
from unibody.core.quantization.float8_linear import Float8Linear
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.plans import split_rows_only
from unibody.core.quantization.quantizer import HfQuantizer

__all__ = ["FbgemmFp8Config", "FbgemmFp8HfQuantizer", "FbgemmFp8Linear"]


@dataclass(eq=False)
class FbgemmFp8Config(QuantizationConfigMixin):
    """The largest magnitude of an input that counts: what lies beyond is cut off."""

    quant_method: ClassVar[str] = "fbgemm_fp8"
    loading_attributes: ClassVar[tuple[str, ...]] = ("activation_scale_ub",)

    activation_scale_ub: float = 1200.0
    modules_to_not_convert: list[str] | None = None

    def post_init(self) -> None:
        if self.activation_scale_ub <= 0:
            raise ValueError(
                f"FbgemmFp8Config: activation_scale_ub is {self.activation_scale_ub!r}, expected a positive number"
            )


def round_rows(values: Tensor, most: float | None = None) -> tuple[Tensor, Tensor]:
    """Codes [M, K] of rows, and their scales float32 [M, 1]; `most` bounds the magnitude that a scale is made for."""
    values = values.float()
    inverse = 448 / values.abs().amax(-1, keepdim=True).clamp(1e-12, most)
    return round_to_float8(values * inverse), 1 / inverse


def rowwise_matmul(layer: Any, x: Tensor) -> Tensor:
    """FBGEMM's own kernel; sums in float32."""
    import_module("fbgemm_gpu.experimental.gen_ai")  # which registers it
    (codes, scales), stored = layer.float8_inputs(x.reshape(-1, x.shape[-1])), layer.stored_tensors()
    rows = stored["weight_scale"].float().view(-1)
    y = torch.ops.fbgemm.f8f8bf16_rowwise(codes, stored["weight"], scales.view(-1), rows, use_fast_accum=False)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


class FbgemmFp8Linear(Float8Linear):
    """A linear layer whose weight's rows, and whose inputs' tokens, are float8 with a scale each."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "fbgemm",
            entry=rowwise_matmul,
            device="cuda",
            capability=(9, 0),
            dtypes=("bfloat16",),
            multiples=(16, 16),
            package="fbgemm_gpu",
            target="torch:ops.fbgemm.f8f8bf16_rowwise",
        ),
        *Float8Linear.kernels,
    )

    def __init__(self, linear: nn.Linear, config: FbgemmFp8Config) -> None:
        super().__init__(linear, config)
        self.block = 1, self.in_features

    def empty_tensors(self) -> dict[str, Tensor]:
        weight = torch.empty(self.out_features, self.in_features, dtype=torch.float8_e4m3fn)
        return {"weight": weight, "weight_scale": torch.empty(self.out_features, 1)}

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """By rows: all of a token is rounded by its largest magnitude."""
        return {"weight": 0, "weight_scale": 0}, {}

    def part_multiples(self) -> tuple[int, int]:
        return 1, 1

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        codes, scales = round_rows(weight)
        return {"weight": codes, "weight_scale": scales}

    def float8_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return round_rows(x, self.config.activation_scale_ub)


class FbgemmFp8HfQuantizer(HfQuantizer):
    """Reads and makes float8 layers with a scale for each row."""

    auto_quantizer: ClassVar[str] = "fbgemm_fp8"
    linear_class: ClassVar[Any] = FbgemmFp8Linear
    packed_tensor: ClassVar[str] = "weight_scale"

    def update_tp_plan(self, config: Any) -> Any:
        """Tokens are rounded whole: no process rounds a part of one."""
        return split_rows_only(config)

    def saved_config(self, model: Any) -> dict[str, Any]:
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))
