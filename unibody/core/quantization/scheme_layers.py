"""Linear layers whose weights and inputs are rounded as a group of a toolkit's configuration says, codes of eight bits and FP4.

compressed-tensors and Quark share them; what differs is a class's `flat` and how near ties are rounded.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core import role
from unibody.core.quantization.affine import nearest_codes
from unibody.core.quantization.float4 import pack_float4, pack_float6, unpack_float4, unpack_float6
from unibody.core.quantization.float8 import round_to_float8
from unibody.core.quantization.float8_linear import Float8Linear
from unibody.core.quantization.int8 import int8_product, int8pack_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul, matmul_by_rows
from unibody.core.quantization.schemes import (
    block_shape,
    find_scales,
    in_blocks,
    read_scheme,
    round_values,
    static_tensors,
    to_codes,
)


def int8_matmul(layer: Any, x: Tensor) -> Tensor:
    """Codes of inputs and weight, multiplied as integers; a scale for each token, or the checkpoint's, and for each row."""
    (codes, scales), (weight, steps) = layer.int8_inputs(x.reshape(-1, x.shape[-1])), layer.int8_rows()
    y = int8_product(codes, weight) * (scales[:, None] * steps.float())
    y = (y if layer.bias is None else y + layer.bias.float()).to(x.dtype)
    return y.view(*x.shape[:-1], -1)


class SchemeLinear(PackedLinear):
    """The base of layers with a scale for each block of the weight; the scheme says how large these are.

    Outputs are rounded where the scheme says so, whichever kernel has made them; with gradients, neither they nor inputs are.
    """

    # Whether shapes lack sizes of one, and integers have zero points even where they are 0.
    flat: ClassVar[bool] = False
    coded: ClassVar[tuple[str, ...]] = ()  # the tensors that a kernel's layout holds in its own way
    variable_tensors: ClassVar[tuple[str, ...]] = ("weight_scale", "input_", "output_")

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any], **sizes: int) -> None:
        super().__init__(linear, config, **sizes)
        self.weights, self.inputs, self.outputs = read_scheme(scheme)
        self.block = block_shape(self.weights, self.out_features, self.in_features)
        self.grid = -(-self.out_features // self.block[0]), -(-self.in_features // self.block[1])  # of blocks
        self.others: dict[str, Tensor] = {}  # the tensors that are not `coded`

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        if layout is None:
            self.others = {name: tensor for name, tensor in tensors.items() if name not in self.coded}

    def scale_shape(self) -> list[int]:
        """The shape of the weight's scales in a checkpoint."""
        if self.weights.strategy == "tensor":
            return [] if self.flat else [1]
        return [self.grid[0]] if self.flat else list(self.grid)

    def empty_tensors(self) -> dict[str, Tensor]:
        return self.quantize(torch.zeros(self.out_features, self.in_features))

    def usual_tensors(self) -> dict[str, Tensor]:
        return {
            **static_tensors(self.inputs, "input_", self.flat),
            **static_tensors(self.outputs, "output_", self.flat),
        }

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        return self.round_weight(weight, self.choose_scales(weight))

    def choose_scales(self, weight: Tensor) -> dict[str, Tensor]:
        """Scales and zero points [N / n, K / k] for a weight, and FP4's number for all: as a checkpoint of plain weights has them."""
        blocks = in_blocks(weight, self.block)
        overall = (448 * 6 / weight.abs().amax()).float().view(1) if self.weights.strategy == "tensor_group" else None
        scales, zeros = find_scales(blocks.amin((1, 3)), blocks.amax((1, 3)), self.weights, overall)
        found = {"weight_scale": scales, "weight_zero_point": zeros}
        return found if overall is None else found | {"weight_global_scale": overall}

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        """The packed tensors of a weight [N, K] with these scales; what is told of inputs and outputs goes with them."""
        raise NotImplementedError

    def find_codes(self, weight: Tensor, told: dict[str, Tensor]) -> Tensor:
        """The nearest codes to a weight [N, K], zero points added, in its type."""
        blocks, args = in_blocks(weight, self.block), self.weights
        scales = told["weight_scale"].view(self.grid)[:, None, :, None]
        if args.type == "float":
            scales = scales / told["weight_global_scale"].float() if "weight_global_scale" in told else scales
            return to_codes(blocks / scales, args).view(weight.shape)
        zeros = told["weight_zero_point"].to(scales.dtype).view(self.grid)[:, None, :, None]
        if args.inverse:
            return nearest_codes(blocks, scales, zeros, args.num_bits).view(weight.shape)
        return to_codes(blocks / scales + zeros, args).view(weight.shape)

    def other_tensors(self, told: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a new layer holds beside codes and scales, as far as it is told."""
        return {name: told.get(name, tensor) for name, tensor in self.usual_tensors().items()}

    def round_inputs(self, x: Tensor) -> Tensor:
        return x if self.inputs is None else round_values(x, self.inputs, self.others, "input_")

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.outputs is None or (x.requires_grad and torch.is_grad_enabled()):
            return y
        return round_values(y, self.outputs, self.others, "output_")


@role
class Int8SchemeLinear(SchemeLinear):
    """Codes of int8 as they are."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("int8_product", entry=int8_matmul, multiples=(8, 8)),
        Kernel("int8pack_cpu", entry=int8pack_matmul, device="cpu", dtypes=("bfloat16",), multiples=(1, 16)),
        Kernel(
            "triton_int8",
            template="int8_matmul.triton.py.j2",
            device="cuda",
            capability=(8, 0),  # Triton's products of int8
            package="triton",
        ),
        Kernel("torch", entry=dequantize_matmul),
    )

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {"weight": self.find_codes(weight, told).to(torch.int8)}
        found |= {"weight_scale": told["weight_scale"].reshape(self.scale_shape()), **self.other_tensors(told)}
        if self.flat or not self.weights.symmetric:
            found["weight_zero_point"] = told["weight_zero_point"].reshape(self.scale_shape()).to(torch.int8)
        return found

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        codes, scales = stored["weight"].float(), stored["weight_scale"].float()
        zeros = stored["weight_zero_point"].float() if "weight_zero_point" in stored else torch.zeros_like(scales)
        shape = (self.grid[0], 1, self.grid[1], 1)
        return ((in_blocks(codes, self.block) - zeros.view(shape)) * scales.view(shape)).view(codes.shape).to(dtype)

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
        if self.inputs.inverse:
            return nearest_codes(rows, scales, 0, 8).to(torch.int8), scales.float().flatten()
        return to_codes(rows / scales, self.inputs).to(torch.int8), scales.float().flatten()

    def why_not(self, kernel: Kernel) -> str:
        if kernel.name == "torch":
            return ""
        if not self.weights.symmetric or self.weights.strategy not in ("channel", "tensor"):
            return "it reads symmetric codes with a scale for each row"
        args = self.inputs
        if args is None and kernel.name != "int8_product":
            return ""
        if kernel.name == "int8pack_cpu":
            return "its inputs are not rounded"
        int8 = args is not None and args.type == "int" and args.num_bits == 8 and args.symmetric
        fits = int8 and args is not None and args.strategy == ("token" if args.dynamic else "tensor")
        return "" if fits else "it reads inputs of symmetric int8, with a scale for each token or one for all"


@role
class Float8SchemeLinear(SchemeLinear, Float8Linear):
    """Codes of float8; the scales may be exponents of two."""

    def empty_tensors(self) -> dict[str, Tensor]:
        kind = torch.uint8 if self.weights.scale_dtype else torch.float32
        return {
            "weight": torch.empty(self.out_features, self.in_features, dtype=torch.float8_e4m3fn),
            "weight_scale": torch.empty(self.scale_shape(), dtype=kind),
            **self.usual_tensors(),
        }

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        codes = round_to_float8(self.find_codes(weight, told))
        scales = told["weight_scale"].reshape(self.scale_shape())
        scales = scales.float().to(torch.float8_e8m0fnu).view(torch.uint8) if self.weights.scale_dtype else scales
        return {"weight": codes, "weight_scale": scales, **self.other_tensors(told)}

    def read_scales(self, stored: dict[str, Tensor]) -> Tensor:
        return super().read_scales(stored).view(() if self.weights.strategy == "tensor" else self.grid)

    def has_float8_inputs(self) -> bool:
        """Whether inputs are rounded to float8, with scales that go with those of the weight."""
        if (args := self.inputs) is None or args.type != "float" or args.split != "e4m3":
            return False
        whole = self.block[1] >= self.in_features
        return args.strategy == "tensor" or (whole if args.strategy == "token" else args.group_size == self.block[1])

    def read_inputs(self, x: Tensor) -> Tensor:
        return super().read_inputs(x) if self.has_float8_inputs() else self.round_inputs(x).float()

    def float8_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stored, args = self.stored_tensors(), self.inputs
        if args is None:
            raise ValueError("the inputs of this layer are not rounded")
        if not args.dynamic:
            scale = stored["input_scale"].to(x.dtype).view(())
            return round_to_float8(x / scale), scale.float()
        if args.strategy == "tensor":
            scale, _ = find_scales(x.amin(), x.amax(), args)
            return round_to_float8(x / scale), scale.float()
        blocks = x.unflatten(-1, (-1, self.block[1]))
        scales, _ = find_scales(blocks.amin(-1), blocks.amax(-1), args)
        return round_to_float8(blocks / scales[..., None]).view(x.shape), scales.float()

    def why_not(self, kernel: Kernel) -> str:
        if kernel.name != "torch" and not self.has_float8_inputs():
            return "it rounds inputs to float8, by the weight's blocks, and this layer's are rounded otherwise or not"
        return super().why_not(kernel)


@role
class Float4SchemeLinear(SchemeLinear):
    """FP4, two numbers in a byte, or FP6, four in three; scales are exponents of two, or float8 beside one number for all."""

    packed_name: ClassVar[str] = "weight_packed"
    packing: ClassVar[Packing] = Packing(word="uint8", order=(0, 1), scale="byte")
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel("triton_float4", template="table_matmul.triton.py.j2", device="cuda", package="triton", bits=(4,)),
        Kernel("torch", entry=matmul_by_rows),
    )

    def __init__(self, linear: nn.Linear, config: Any, scheme: dict[str, Any]) -> None:
        super().__init__(linear, config, scheme)
        self.bits = self.weights.num_bits

    def round_weight(self, weight: Tensor, told: dict[str, Tensor]) -> dict[str, Tensor]:
        overall, scales = told.get("weight_global_scale"), told["weight_scale"].float().view(self.grid)
        numbers = self.find_codes(weight, told)
        found = {
            self.packed_name: pack_float4(numbers) if self.bits == 4 else pack_float6(numbers, self.weights.split)
        }
        if self.weights.scale_dtype == "torch.float32":
            found["weight_scale"] = told["weight_scale"]
        elif overall is None:
            found["weight_scale"] = scales.to(torch.float8_e8m0fnu).view(torch.uint8)
        else:
            found |= {"weight_scale": scales.to(torch.float8_e4m3fn), "weight_global_scale": overall}
        return found | self.other_tensors(told)

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        packed, scales = stored[self.packed_name], stored["weight_scale"]
        values = (unpack_float4(packed) if self.bits == 4 else unpack_float6(packed, self.weights.split)).view(
            *scales.shape, -1
        )
        if "weight_global_scale" in stored:
            steps = scales.float() / stored["weight_global_scale"].float()
        else:
            steps = (scales.view(torch.float8_e8m0fnu) if scales.dtype == torch.uint8 else scales).float()
        return (values * steps[..., None]).flatten(1).to(dtype)

    def table_blocks(self) -> tuple[Tensor, Tensor | None, Tensor, int]:
        """Bytes, what all numbers are divided by, a byte of scale for each block, and a block's columns."""
        stored = self.stored_tensors()
        packed, scales, overall = stored[self.packed_name], stored["weight_scale"], stored.get("weight_global_scale")
        scales = scales if scales.dtype == torch.uint8 else scales.view(torch.int8)
        return packed, None if overall is None else overall.float(), scales, self.block[1]

    def why_not(self, kernel: Kernel) -> str:
        fits = self.weights.scale_dtype != "torch.float32" or kernel.name == "torch"
        return "" if fits else "it reads scales of a byte"
