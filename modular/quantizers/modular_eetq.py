"""EETQ: eight bits for weights, a scale for each output; stored as a GPU's matrix units read them (github.com/NetEase-FuXi/EETQ).

| | |
|---|---|
| `weight` | int8 [K, N]: codes in tiles, see below; W = code · scale |
| `weight_scales` | float16 [N]: the output's largest magnitude / 128 |
| tiles | of each 16 input columns the order is 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15; then two outputs take turns, 64 columns each |
| bytes | code + 128; of each four, the second and third are exchanged |
| sums | float32 |
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.int8 import int8pack_matmul
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer

__all__ = ["EetqConfig", "EetqHfQuantizer", "EetqLinear"]

ORDER = (0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)  # of input columns, as the units' registers want them
EXCHANGED = (0, 2, 1, 3)  # of four bytes


@dataclass(eq=False)
class EetqConfig(QuantizationConfigMixin):
    """What weights are rounded to: eight bits."""

    quant_method: ClassVar[str] = "eetq"

    weights: str = "int8"
    modules_to_not_convert: list[str] | None = None

    def post_init(self) -> None:
        require_choice(self, "weights", ("int8",))


def tile_codes(codes: Tensor) -> Tensor:
    """Codes int8 [N, K] as the matrix units read them, [K, N]; N divides by 2 and K by 64."""
    n, k = codes.shape
    ordered = codes.view(n, -1, 16)[..., list(ORDER)]
    pairs = ordered.view(n // 2, 2, k // 64, 64).transpose(1, 2)  # [N / 2, K / 64, 2, 64]
    # Of an int8, adding 128 turns the highest bit.
    return (pairs.reshape(-1, 4)[:, list(EXCHANGED)] ^ -128).view(k, n)


def untile_codes(tiles: Tensor) -> Tensor:
    """The inverse of tile_codes."""
    k, n = tiles.shape
    pairs = tiles.view(-1, 4)[:, list(EXCHANGED)] ^ -128
    ordered = pairs.view(n // 2, k // 64, 2, 64).transpose(1, 2).reshape(n, -1, 16)
    return ordered[..., [ORDER.index(column) for column in range(16)]].view(n, k)


class RowsLayout:
    """Codes row by row, as a CPU reads them."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"codes": untile_codes(stored["weight"]), "weight_scales": stored["weight_scales"]}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"weight": tile_codes(held["codes"]), "weight_scales": held["weight_scales"]}


def eetq_matmul(layer: Any, x: Tensor) -> Tensor:
    """EETQ's own kernel, which reads the checkpoint's tiles; sums in float32."""
    stored = layer.stored_tensors()
    y = import_module("EETQ").w8_a16_gemm(x.reshape(-1, x.shape[-1]), stored["weight"], stored["weight_scales"])
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


class EetqLinear(PackedLinear):
    """A linear layer whose weight is int8 in tiles."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "eetq",
            entry=eetq_matmul,
            device="cuda",
            capability=(7, 5),
            below=(9, 0),  # its tiles are other ones there
            dtypes=("float16",),
            package="EETQ",
            target="EETQ:w8_a16_gemm",
        ),
        Kernel("int8pack_cpu", entry=int8pack_matmul, layout=RowsLayout, device="cpu", dtypes=("bfloat16",)),
        Kernel("triton", template="int8_matmul.triton.py.j2", layout=RowsLayout, device="cuda", package="triton"),
        Kernel("torch", entry=dequantize_matmul),
    )

    def empty_tensors(self) -> dict[str, Tensor]:
        return {
            "weight": torch.empty(self.in_features, self.out_features, dtype=torch.int8),
            "weight_scales": torch.empty(self.out_features, dtype=torch.float16),
        }

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """In float32, halves rounded away from zero; the scale is rounded to float16 only afterwards."""
        weight = weight.float()
        scales = weight.abs().amax(1, keepdim=True) / 128
        ratio = weight / scales.clamp(min=torch.finfo(torch.float32).tiny)
        codes = torch.sign(ratio) * torch.floor(ratio.abs() + 0.5)
        tiles = tile_codes(codes.clamp(-128, 127).to(torch.int8))
        return {"weight": tiles, "weight_scales": scales.view(-1).half()}

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        return (untile_codes(stored["weight"]).float() * stored["weight_scales"].float()[:, None]).to(dtype)

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        """The codes [N, K] and scales [N] of RowsLayout."""
        return self.get_buffer("codes"), self.get_buffer("weight_scales")


class EetqHfQuantizer(HfQuantizer):
    """Reads and makes int8 layers; those that are no whole tiles stay plain."""

    auto_quantizer: ClassVar[str] = "eetq"
    linear_class: ClassVar[Any] = EetqLinear
    packed_tensor: ClassVar[str] = "weight_scales"

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        whole = linear.in_features % 64 == 0 and linear.out_features % 16 == 0
        return self.linear_class(linear, self.quantization_config) if whole else None

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers that are no whole tiles."""
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))
