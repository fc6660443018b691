"""AQLM: additive quantization, weights as sums of entries of learned codebooks (2401.06118).

| | |
|---|---|
| weight | tiles of out_group_size × in_group_size: the sum over codebooks c of entry code[c] · scale of the output group |
| `codes` | int8 or int16 [N / out_group_size, K / in_group_size, num_codebooks]: the bits of unsigned codes |
| `codebooks` | [num_codebooks, 2^nbits_per_codebook, out_group_size, in_group_size] |
| `scales` | [N / out_group_size, 1, 1, 1] |
| sums | float32 |
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.config import QuantizationConfigMixin
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul
from unibody.core.quantization.quantizer import HfQuantizer

__all__ = ["AqlmConfig", "AqlmHfQuantizer", "AqlmLinear"]


@dataclass(eq=False)
class AqlmConfig(QuantizationConfigMixin):
    """Sizes of groups and codebooks."""

    quant_method: ClassVar[str] = "aqlm"

    in_group_size: int = 8
    out_group_size: int = 1
    num_codebooks: int = 1
    nbits_per_codebook: int = 16
    linear_weights_not_to_quantize: list[str] | None = None  # full names of weights

    def post_init(self) -> None:
        for name in ("in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"AqlmConfig: {name} is {value}, expected a positive number")
        if self.nbits_per_codebook > 16:
            raise ValueError(f"AqlmConfig: nbits_per_codebook is {self.nbits_per_codebook}, expected 16 or fewer")
        self.linear_weights_not_to_quantize = self.linear_weights_not_to_quantize or []


def codebook_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of inputs [..., K]: for a few rows the inputs' products with the codebooks are looked up (section 3.3), and summed in float32.

    More rows, or larger codebooks, are multiplied by some of the weight's rows at a time, which stay in the cache.
    """
    stored, height, size = layer.stored_tensors(), layer.out_group_size, 2**layer.bits
    rows, codes, scales = x.reshape(-1, x.shape[-1]), stored["codes"], stored["scales"]
    if len(rows) * size <= 8 * 256:
        groups = rows.float().view(len(rows), -1, layer.in_group_size)
        products = torch.einsum("mgi,cvoi->gcvmo", groups, stored["codebooks"].float()).flatten()
        places = layer.places(codes.flatten(1))
        found = F.embedding_bag(places, products.view(-1, len(rows) * height), mode="sum") * scales.view(-1, 1)
        y = found.view(-1, len(rows), height).transpose(0, 1).reshape(len(rows), -1).to(x.dtype)
    else:
        step = max(1, 2**18 // layer.in_features // height)
        some = zip(codes.split(step), scales.split(step), strict=True)
        parts = ({**stored, "codes": part, "scales": scale} for part, scale in some)
        y = torch.cat([F.linear(rows, layer.unpack(part, x.dtype)) for part in parts], 1)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


def aqlm_matmul(layer: Any, x: Tensor) -> Tensor:
    """AQLM's own kernels, which it compiles when it first needs them; they take codebooks and scales in the type of the inputs."""
    codebooks, scales = layer.codebooks.to(x.dtype), layer.scales.to(x.dtype)
    product = import_module("aqlm.inference_kernels").get_forward_pass_kernel(codebooks, False)
    y: Tensor = product(x, layer.codes, codebooks, scales, None if layer.bias is None else layer.bias.to(x.dtype))
    return y


class AqlmLinear(PackedLinear):
    """A linear layer of learned codebooks."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("triton", template="codebook_matmul.triton.py.j2", device="cuda", package="triton"),
        Kernel("codebook_cpu", entry=codebook_matmul, device="cpu"),
        Kernel("torch", entry=dequantize_matmul),
        # Only if it is named.
        Kernel(
            "aqlm",
            entry=aqlm_matmul,
            device="cuda",
            dtypes=("float16", "bfloat16"),
            package="aqlm>=1.1.6",
            target="aqlm.inference_kernels:get_forward_pass_kernel",
        ),
    )

    def __init__(self, linear: nn.Linear, config: AqlmConfig) -> None:
        super().__init__(linear, config)
        self.in_group_size, self.out_group_size = config.in_group_size, config.out_group_size
        self.bits = config.nbits_per_codebook

    def fits(self) -> bool:
        return self.out_features % self.out_group_size == self.in_features % self.in_group_size == 0

    def why_not(self, kernel: Kernel) -> str:
        is_whole = kernel.package != "triton" or self.in_group_size.bit_count() == 1
        return "" if is_whole else f"it reads groups of a power of two of inputs, not {self.in_group_size}"

    def empty_tensors(self) -> dict[str, Tensor]:
        groups, count = self.out_features // self.out_group_size, self.config.num_codebooks
        kind = torch.int8 if self.bits <= 8 else torch.int16
        entry = self.out_group_size, self.in_group_size
        return {
            "codes": torch.empty(groups, self.in_features // self.in_group_size, count, dtype=kind),
            "codebooks": torch.empty(count, 2**self.bits, *entry, dtype=torch.float16),
            "scales": torch.empty(groups, 1, 1, 1, dtype=torch.float16),
        }

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """Each part has all codebooks."""
        return {"codes": 0, "codebooks": None, "scales": 0}, {"codes": 1, "codebooks": None, "scales": None}

    def part_multiples(self) -> tuple[int, int]:
        return self.out_group_size, self.in_group_size

    def places(self, codes: Tensor) -> Tensor:
        """int32, of codes [..., n]: where their entries lie in n tables of 2^nbits_per_codebook that follow each other."""
        size = 2**self.bits
        return (codes.int() & size - 1) + size * torch.arange(codes.shape[-1], dtype=torch.int32, device=codes.device)

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes, codebooks = stored["codes"], stored["codebooks"].float()
        entries = codebooks.view(-1, self.out_group_size * self.in_group_size)
        tiles = F.embedding_bag(self.places(codes).view(-1, codes.shape[-1]), entries, mode="sum")
        tiles = tiles.view(*codes.shape[:2], *codebooks.shape[2:]).mul_(stored["scales"])
        return tiles.transpose(1, 2).reshape(-1, self.in_features).to(dtype)


class AqlmHfQuantizer(HfQuantizer):
    """Reads layers of learned codebooks; plain weights it does not quantize."""

    auto_quantizer: ClassVar[str] = "aqlm"
    requires_calibration: ClassVar[bool] = True
    linear_class: ClassVar[Any] = AqlmLinear
    skipped_by: ClassVar[str] = "linear_weights_not_to_quantize"
    packed_tensor: ClassVar[str] = "codes"

    def validate_environment(self, dtype: Any = None, device_map: Any = None, weights_only: bool = True) -> None:
        super().validate_environment(dtype, device_map, weights_only)
        if not self.pre_quantized:
            raise ValueError(
                "AQLM's codebooks are learned by github.com/Vahe1994/AQLM: load a checkpoint that it wrote"
            )
