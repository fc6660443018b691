"""bitsandbytes: LLM.int8, eight bits with outliers in sixteen (2208.07339); and FP4 and NF4, tables of 16 values (2305.14314).

| 8 bits | |
|---|---|
| `weight` | int8 [N, K] = round(W · 127 / SCB), symmetric |
| `SCB` | float32 [N]: the largest magnitude of each row |
| `weight_format` | uint8, 0: in rows |
| sums | int32, of codes of both sides; input columns that hold an outlier count in their own type |

| 4 bits | |
|---|---|
| `weight` | [N · K / 2, 1] bytes, as `bnb_4bit_quant_storage` types them: codes row by row, the first of two in the high bits |
| `weight.absmax` | float32 [N · K / 64]: the largest magnitude of each block; W = quant_map[code] · absmax |
| `weight.quant_map` | float32 [16]: the values of the codes |
| `weight.quant_state.…` | uint8: JSON with the block's size, the type and the shape |
| double quantization | `absmax` uint8 codes, = nested_quant_map[code] · nested_absmax[block of 256] + nested_offset |
| sums | float32 |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.bitsandbytes_cpu import Avx512Bf16Layout, avx512_matmul
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.int8 import MainWeightMatmul, RowSumsLayout, round_row, round_rows, shifted_int8_product
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.linear import PackedLinear, dequantize_matmul
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.plans import split_rows_only
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.tables import TABLES, dynamic_map, round_blocks, table_matmul

__all__ = ["BitsAndBytesConfig", "Bnb4BitHfQuantizer", "Bnb8BitHfQuantizer", "Linear4bit", "Linear8bitLt"]

STORAGE_TYPES = (torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
STEP = 6.200124e-05  # of products of codes, bitsandbytes' own; 1 / 127² would be 6.200012e-05
BLOCK, NESTED_BLOCK = 64, 256  # values that share a scale; scales that do


@dataclass(eq=False)
class BitsAndBytesConfig(QuantizationConfigMixin):
    """Which of the two methods, and how; the two `load_in_…` exclude each other."""

    quant_method: ClassVar[str] = "bitsandbytes"
    loading_attributes: ClassVar[tuple[str, ...]] = ("bnb_4bit_compute_dtype", "llm_int8_threshold")
    ignored_keys: ClassVar[tuple[str, ...]] = ("_load_in_8bit", "_load_in_4bit")

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0  # magnitude from which an input is an outlier; 0: none is
    llm_int8_skip_modules: list[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False  # layers that device_map puts on the CPU or the disk stay plain
    llm_int8_has_fp16_weight: bool = False  # weights stay in 16 bits, can be trained, and are rounded in each pass
    bnb_4bit_compute_dtype: Any = None  # a type or its name; None: float32
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: Any = None  # a type or its name; None: uint8

    def post_init(self) -> None:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("BitsAndBytesConfig: load_in_8bit and load_in_4bit exclude each other: set one of them")
        require_choice(self, "bnb_4bit_quant_type", TABLES)
        for name, usual in (("bnb_4bit_compute_dtype", "float32"), ("bnb_4bit_quant_storage", "uint8")):
            value = usual if (given := getattr(self, name)) is None else given
            setattr(self, name, getattr(torch, value, value) if isinstance(value, str) else value)
        require_choice(self, "bnb_4bit_compute_dtype", (torch.float32, torch.float16, torch.bfloat16, torch.float64))
        require_choice(self, "bnb_4bit_quant_storage", STORAGE_TYPES)

    def is_quantizable(self) -> bool:
        return self.load_in_8bit or self.load_in_4bit

    def quantization_method(self) -> str | None:
        """`llm_int8`, `fp4`, `nf4`, or None if neither method is chosen."""
        return "llm_int8" if self.load_in_8bit else self.bnb_4bit_quant_type if self.load_in_4bit else None

    def to_dict(self) -> dict[str, Any]:
        """All keys of the JSON; the choice of method under the names that it has had, too."""
        values = super().to_dict()
        return {**values, "_load_in_8bit": self.load_in_8bit, "_load_in_4bit": self.load_in_4bit}


def int8_outlier_matmul(layer: Any, x: Tensor) -> Tensor:
    """LLM.int8 (section 3): products of codes, sums in int32; columns with outliers are taken out and multiplied as they are."""
    rows = x if x.dim() == 2 else x.flatten(0, -2)
    codes, largest, outliers = layer.split_inputs(rows, len(rows) == 1 and not x.is_cuda)
    weight, scales = layer.rounded_weight()
    product = shifted_int8_product(codes, weight, layer._buffers.get("row_sums"))
    y = product.float().mul_(largest * scales).mul_(STEP)
    y = (y if layer.bias is None else y.add_(layer.bias)).to(x.dtype)
    y = y if outliers is None else layer.add_outliers(y, rows, outliers)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], -1)


def bitsandbytes_int8_matmul(layer: Any, x: Tensor) -> Tensor:
    """The same by bitsandbytes' operators."""
    import_module("bitsandbytes")  # which registers them
    operators, rows, threshold = torch.ops.bitsandbytes, x.reshape(-1, x.shape[-1]), layer.config.llm_int8_threshold
    codes, largest, outliers = operators.int8_vectorwise_quant(rows.half(), threshold)
    weight, scales = layer.rounded_weight()
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    if outliers is None or not len(outliers):
        y = operators.int8_scaled_mm(codes, weight, largest, scales, bias, x.dtype)
    else:
        y, _ = operators.int8_mixed_scaled_mm(rows, codes, weight, largest, scales, outliers, bias)
    return y.view(*x.shape[:-1], -1)


class Linear8bitLt(PackedLinear):
    """LLM.int8: int8 codes of the weight's rows meet int8 codes of the input's rows, outlier columns aside.

    Where a gradient is asked for, the input is not rounded: y = x · dequantize()ᵀ.
    """

    has_outliers: ClassVar[bool] = True
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "bitsandbytes",
            entry=bitsandbytes_int8_matmul,
            device="cuda",
            capability=(7, 5),
            dtypes=("float16", "bfloat16", "float32"),
            package="bitsandbytes>=0.50",
            target="torch:ops.bitsandbytes.int8_mixed_scaled_mm",
        ),
        # Triton's products of int8
        Kernel("triton_int8", template="int8_matmul.triton.py.j2", device="cuda", capability=(8, 0), package="triton"),
        Kernel("int8_cpu", entry=int8_outlier_matmul, layout=RowSumsLayout, device="cpu"),
        Kernel("torch", entry=int8_outlier_matmul),
    )

    def __init__(self, linear: nn.Linear, config: BitsAndBytesConfig) -> None:
        super().__init__(linear, config)
        self.has_main_weight = config.llm_int8_has_fp16_weight

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        """The main weight is a parameter, which can be trained."""
        self._parameters.pop("weight", None)
        super().hold(tensors, layout)
        if self.has_main_weight and tensors:
            weight: Any = self._buffers.pop("weight")
            self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        if self.has_main_weight and torch.is_grad_enabled():
            y: Tensor = MainWeightMatmul.apply(x, self.weight, self.bias)
            return y
        return super().forward(x)

    def empty_tensors(self) -> dict[str, Tensor]:
        kind = torch.float16 if self.has_main_weight else torch.int8
        weight = torch.empty(self.out_features, self.in_features, dtype=kind)
        scales = {"SCB": torch.empty(self.out_features, dtype=torch.float32), **self.usual_tensors()}
        return {"weight": weight, **({} if self.has_main_weight else scales)}

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """By rows: all of a token is rounded by its largest magnitude."""
        return {"weight": 0, "SCB": 0, "weight_format": None}, {}

    def usual_tensors(self) -> dict[str, Tensor]:
        return {"weight_format": torch.tensor(0, dtype=torch.uint8)}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        if self.has_main_weight:
            return {"weight": weight.half()}
        codes, largest = round_rows(weight.half())
        return {"weight": codes, "SCB": largest.squeeze(1), **self.usual_tensors()}

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        if self.has_main_weight:
            return stored["weight"].to(dtype)
        return (stored["weight"].float() * (stored["SCB"] * (1 / 127))[:, None]).to(dtype)

    def split_inputs(self, rows: Tensor, one: bool = False) -> tuple[Tensor, Any, Tensor | None]:
        """Codes of rows and their largest magnitudes, [M, 1] or for `one` a number; and columns with outliers, which they leave out."""
        halves, threshold = rows.half(), self.config.llm_int8_threshold
        found: Any = round_row(halves) if one else round_rows(halves)
        if not threshold or float(found[1] if one else found[1].max()) < threshold:
            return *found, None
        codes, largest = round_rows(halves, threshold)
        outliers = (halves.abs() >= threshold).any(0).nonzero().view(-1)
        codes[:, outliers] = 0
        return codes, largest, outliers

    def why_not(self, kernel: Kernel) -> str:
        return "its weight is rounded in each pass" if kernel.name == "int8_cpu" and self.has_main_weight else ""

    def rounded_weight(self) -> tuple[Tensor, Tensor]:
        """Codes and the rows' largest magnitudes."""
        if self.has_main_weight:
            codes, largest = round_rows(self.weight.detach())
            return codes, largest.squeeze(1)
        held: Any = self._buffers
        return held["weight"], held["SCB"]

    def int8_rows(self) -> tuple[Tensor, Tensor]:
        """Codes, and what products with the inputs' are to be multiplied by."""
        codes, largest = self.rounded_weight()
        return codes, largest * STEP

    def add_outliers(self, y: Tensor, rows: Tensor, outliers: Tensor) -> Tensor:
        """y and the product of the columns with outliers, in their own type."""
        weight, scales = self.rounded_weight()
        columns = weight[:, outliers].float() * scales[:, None] * (1 / 127)
        return y.addmm(rows[:, outliers], columns.T.to(y.dtype))


def bitsandbytes_matmul(layer: Any, x: Tensor) -> Tensor:
    """bitsandbytes' operator, which reads the checkpoint's tensors, with nested scales too; sums in float32."""
    import_module("bitsandbytes")  # which registers it
    state, stored = layer.read_state(), layer.stored_tensors()
    packed, absmax = stored["weight"].view(torch.uint8), stored["weight.absmax"]
    bias, nested = None if layer.bias is None else layer.bias.to(x.dtype), (None, None, None)
    if "nested_offset" in state:
        offset = absmax.new_full((), state["nested_offset"], dtype=torch.float32)
        nested = absmax, stored["weight.nested_quant_map"], offset
        absmax = stored["weight.nested_absmax"]
    shape, kind = (layer.out_features, layer.in_features), layer.config.bnb_4bit_quant_type
    return torch.ops.bitsandbytes.gemm_4bit(x, packed, shape, absmax, state["blocksize"], kind, bias, *nested)


class Linear4bit(PackedLinear):
    """A linear layer of 4-bit codes, computed in `bnb_4bit_compute_dtype`."""

    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "bitsandbytes",
            entry=bitsandbytes_matmul,
            device="cuda",
            capability=(6, 0),
            dtypes=("float16", "bfloat16", "float32"),
            package="bitsandbytes>=0.50",
            target="torch:ops.bitsandbytes.gemm_4bit",
        ),
        Kernel("triton", template="table_matmul.triton.py.j2", device="cuda", package="triton"),
        Kernel(
            "bitsandbytes_cpu",
            entry=avx512_matmul,
            layout=Avx512Bf16Layout,
            device="cpu",
            dtypes=("bfloat16",),
            multiples=(32, 64),
            package="bitsandbytes>=0.50",
            target="torch:ops.bitsandbytes.gemv_4bit",
        ),
        Kernel("table_cpu", entry=table_matmul, device="cpu", dtypes=("bfloat16",), multiples=(1, 64)),
        Kernel("torch", entry=dequantize_matmul),
    )
    packing: ClassVar[Packing] = Packing(word="uint8", order=(1, 0))
    variable_tensors: ClassVar[tuple[str, ...]] = ("weight.absmax", "weight.nested_absmax", "weight.quant_state")

    def __init__(self, linear: nn.Linear, config: BitsAndBytesConfig) -> None:
        super().__init__(linear, config)
        self.state_name = f"weight.quant_state.bitsandbytes__{config.bnb_4bit_quant_type}"
        self.state: dict[str, Any] = {}
        self.compute_dtype = config.bnb_4bit_compute_dtype

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        self.state = {}

    def empty_tensors(self) -> dict[str, Tensor]:
        count, storage = self.out_features * self.in_features, self.config.bnb_4bit_quant_storage
        blocks, nested = -(-count // BLOCK), self.config.bnb_4bit_use_double_quant
        sizes = {
            "weight": (((count + 1) // 2 // storage.itemsize, 1), storage),
            "weight.absmax": ((blocks,), torch.uint8 if nested else torch.float32),
            "weight.quant_map": ((16,), torch.float32),
            self.state_name: ((0,), torch.uint8),  # as long as its text
        }
        if nested:
            sizes["weight.nested_absmax"] = (-(-blocks // NESTED_BLOCK),), torch.float32
            sizes["weight.nested_quant_map"] = (256,), torch.float32
        return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in sizes.items()}

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        kind, dtype = self.config.bnb_4bit_quant_type, str(weight.dtype).removeprefix("torch.")
        table = torch.tensor(TABLES[kind], device=weight.device)
        codes, absmax = round_blocks(weight.flatten(), table, BLOCK)
        codes = F.pad(codes, (0, codes.numel() % 2), value=TABLES[kind].index(0)).view(-1, 2)
        packed = (codes[:, 0] << 4 | codes[:, 1]).view(self.config.bnb_4bit_quant_storage)[:, None]
        state: dict[str, Any] = {"quant_type": kind, "blocksize": BLOCK, "dtype": dtype, "shape": list(weight.shape)}
        tensors = {"weight": packed, "weight.absmax": absmax, "weight.quant_map": table}
        if self.config.bnb_4bit_use_double_quant:
            offset, nested_map = absmax.mean(), dynamic_map().to(weight.device)
            tensors["weight.absmax"], nested = round_blocks(absmax - offset, nested_map, NESTED_BLOCK)
            tensors |= {"weight.nested_absmax": nested, "weight.nested_quant_map": nested_map}
            state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset.item()}
        text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8, device=weight.device)
        return {**tensors, self.state_name: text}

    def read_state(self) -> dict[str, Any]:
        """The JSON that lies beside the weight."""
        if not self.state:
            self.state = json.loads(bytes(getattr(self, self.state_name.replace(".", "_")).tolist()))
        return self.state

    def why_not(self, kernel: Kernel) -> str:
        reads_rows = kernel.name in ("bitsandbytes", "bitsandbytes_cpu", "table_cpu")
        if reads_rows and self.in_features % self.read_state()["blocksize"]:
            return f"blocks of {self.state['blocksize']} do not divide rows of {self.in_features}"
        if kernel.name == "bitsandbytes" and self.state.get("nested_blocksize", NESTED_BLOCK) != NESTED_BLOCK:
            return f"it reads nested blocks of {NESTED_BLOCK}, not {self.state['nested_blocksize']}"
        if kernel.name == "bitsandbytes" and self.get_buffer("weight_absmax").dim() != 1:
            return "its scales lie in the order of the CPU's kernel"
        if kernel.name == "bitsandbytes_cpu" and not import_module("bitsandbytes.functional").has_avx512bf16():
            return "this CPU has no AVX512_BF16"
        return ""

    def table_blocks(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Bytes, the values of their codes, a scale for each block, and a block's values."""
        packed, scales = self.get_buffer("weight").view(torch.uint8), self.scales(self.stored_tensors())
        return packed, self.get_buffer("weight_quant_map"), scales, self.read_state()["blocksize"]

    def scales(self, stored: dict[str, Tensor]) -> Tensor:
        """float32 [blocks]: the blocks' largest magnitudes."""
        absmax, state = stored["weight.absmax"], self.read_state()
        if "nested_offset" in state:
            values = stored["weight.nested_quant_map"][absmax.int()]
            nested = stored["weight.nested_absmax"].repeat_interleave(state["nested_blocksize"])
            return values * nested[: len(values)] + state["nested_offset"]
        # A model that has run on the CPU may have been saved with bfloat16 [K / block, N].
        return absmax if absmax.dim() == 1 else absmax.T.flatten().float()

    def unpack(self, stored: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        scales, packed = self.scales(stored), stored["weight"].view(torch.uint8).flatten()
        codes = torch.stack((packed >> 4, packed & 15), 1).flatten()[: self.out_features * self.in_features]
        values = stored["weight.quant_map"][codes.int()]
        weight = values * scales.repeat_interleave(self.state["blocksize"])[: len(values)]
        return weight.view(self.out_features, self.in_features).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.compute_dtype)).to(x.dtype)


class BnbHfQuantizer(HfQuantizer):
    """What the two methods have in common: names of modules to skip, and layers that stay on the CPU."""

    skipped_by: ClassVar[str] = "llm_int8_skip_modules"
    offloaded: Any = ()  # what device_map leaves on the CPU or the disk

    def validate_environment(self, dtype: Any = None, device_map: Any = None, weights_only: bool = True) -> None:
        """Refuses to quantize to nothing, and a device_map that leaves layers on the CPU or the disk unless it is allowed."""
        super().validate_environment(dtype, device_map, weights_only)
        self.quantization_config.__post_init__()  # what has been set since
        if not self.pre_quantized and not self.quantization_config.is_quantizable():
            raise ValueError("BitsAndBytesConfig: nothing is to be quantized: set load_in_4bit or load_in_8bit")
        offloaded = [name for name, device in (device_map or {}).items() if str(device) in ("cpu", "disk")]
        if offloaded and len(offloaded) < len(device_map):
            if not self.quantization_config.llm_int8_enable_fp32_cpu_offload:
                raise ValueError(
                    f"device_map leaves {', '.join(offloaded)} on the CPU or the disk, where layers would stay plain: "
                    "set llm_int8_enable_fp32_cpu_offload=True to allow it, or put all on the GPU"
                )
            self.offloaded = offloaded

    def get_modules_to_not_convert(self, model: Any) -> list[str]:
        """What the user or the checkpoint says, or else the heads; and what is offloaded."""
        named = super().get_modules_to_not_convert(model)
        return [*named, *self.offloaded]

    def saved_config(self, model: Any) -> dict[str, Any]:
        """With all that stays plain: where nothing is said, transformers expects other heads than those of language models packed."""
        named = self.quantization_config.llm_int8_skip_modules or []
        return with_plain_layers(self, model, self.skipped_by, named)


class Bnb8BitHfQuantizer(BnbHfQuantizer):
    """Reads and makes LLM.int8's layers."""

    auto_quantizer: ClassVar[str] = "bitsandbytes_8bit"
    linear_class: ClassVar[Any] = Linear8bitLt
    packed_tensor: ClassVar[str] = "SCB"

    def __init__(self, quantization_config: BitsAndBytesConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if quantization_config.llm_int8_has_fp16_weight:  # a checkpoint has its plain weights, too
            self.pre_quantized = False

    def update_tp_plan(self, config: Any) -> Any:
        """Tokens are rounded whole: no process rounds a part of one."""
        return split_rows_only(config)


class Bnb4BitHfQuantizer(BnbHfQuantizer):
    """Reads and makes layers of FP4 and NF4."""

    auto_quantizer: ClassVar[str] = "bitsandbytes_4bit"
    linear_class: ClassVar[Any] = Linear4bit
    packed_tensor: ClassVar[str] = "weight.absmax"
