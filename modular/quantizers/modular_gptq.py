"""GPTQ: group-wise integer codes, rounded so that each error is made up for by the columns that follow (2210.17323).

| | |
|---|---|
| weight | W[n, k] = (code[n, k] − zero[n, g(k)]) · scale[n, g(k)], codes of 2, 3, 4 or 8 bits |
| `qweight` | int32 [K · bits / 32, N]: a stream of bits down K, the first code lowest |
| `qzeros` | int32 [G, N · bits / 32]: zero points along N; `gptq` (v1) stores the words of zero − 1, `gptq_v2` of zero |
| `scales` | float16 [G, N] |
| `g_idx` | int32 [K]: g(k); k // group_size, or the order of activations (`desc_act`) |
| sums | float32 |
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes, round_groups
from unibody.core.quantization.calibration import (
    batch_samples,
    find_blocks,
    group_by_input,
    require_dataset,
    tokenize_samples,
    visit_blocks,
    watch_inputs,
)
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice, require_exllama_version
from unibody.core.quantization.gptqmodel import GPTQMODEL_ROWS, backend_rows
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.int8_groups import Int8GroupsLayout, int8_groups_matmul
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.packing import pack_words, unpack_words
from unibody.core.quantization.quantizer import HfQuantizer, packed_layers
from unibody.core.quantization.replacement import linears_to_convert, set_module

__all__ = ["GPTQConfig", "GPTQLinear", "GptqHfQuantizer"]

OWN = "bits", "group_size", "sym", "desc_act", "damp_percent"  # what a layer may have for itself
IDLE = "use_cuda_fp16", "use_exllama", "exllama_config", "max_input_length", "module_name_preceding_first_block"


@dataclass(eq=False)
class GPTQConfig(QuantizationConfigMixin):
    """How a model was, or is to be, quantized with GPTQ."""

    quant_method: ClassVar[str] = "gptq"
    written_if_set: ClassVar[tuple[str, ...]] = ("use_cuda_fp16", "use_exllama", "exllama_config", "dynamic")
    ignored_keys: ClassVar[tuple[str, ...]] = ("lm_head", "method", "pack_dtype")

    bits: int
    tokenizer: Any = None
    dataset: list[Any] | str | None = None  # texts, or the ids of their tokens; or a name: wikitext2, c4, c4-new
    group_size: int = 128  # columns that share a scale; -1: all of a row
    damp_percent: float = 0.1
    desc_act: bool = False
    sym: bool = True
    true_sequential: bool = True
    checkpoint_format: str = "gptq"
    meta: dict[str, Any] | None = None
    backend: str | None = None
    use_cuda_fp16: bool = False
    model_seqlen: int | None = None
    block_name_to_quantize: str | None = None
    module_name_preceding_first_block: list[str] | None = None
    batch_size: int = 1
    pad_token_id: int | None = None
    use_exllama: bool | None = None
    max_input_length: int | None = None
    exllama_config: dict[str, Any] | None = None
    cache_block_outputs: bool = True
    modules_in_block_to_quantize: list[list[str]] | None = None
    _: KW_ONLY
    # Without desc_act: groups, and columns in them, are taken by their activations; each column keeps its group.
    act_group_aware: bool = True
    format: str | None = None
    # gptqmodel's: by patterns of names, what differs from the above (OWN); "-:" before a pattern: these layers stay plain.
    dynamic: dict[str, dict[str, Any]] | None = None

    def post_init(self) -> None:
        require_choice(self, "bits", (2, 3, 4, 8))
        if self.format is not None and self.checkpoint_format not in (self.format, GPTQConfig.checkpoint_format):
            names = f"format {self.format!r} and checkpoint_format {self.checkpoint_format!r}"
            raise ValueError(f"GPTQConfig: {names} contradict each other: leave out one")
        self.checkpoint_format = self.format = self.format or self.checkpoint_format
        require_choice(self, "checkpoint_format", ("gptq", "gptq_v2"))
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"GPTQConfig: group_size is {self.group_size}, expected -1 (a whole row) or columns")
        if not 0 < self.damp_percent < 1:
            raise ValueError(f"GPTQConfig: damp_percent is {self.damp_percent}, expected a value between 0 and 1")
        if self.batch_size < 1:
            raise ValueError(f"GPTQConfig: batch_size is {self.batch_size}, expected 1 or more")
        for pattern, options in (self.dynamic or {}).items():
            try:
                re.compile(pattern.removeprefix("+:").removeprefix("-:"))
            except re.error as error:
                raise ValueError(f"GPTQConfig: dynamic has {pattern!r}, no regular expression ({error})") from None
            GPTQConfig(**{"bits": self.bits, **{name: options[name] for name in OWN if name in options}})
        require_dataset(self)
        require_exllama_version(self)
        self.act_group_aware = self.act_group_aware and not self.desc_act
        self.backend = self.backend or "auto"
        if self.backend in ("torch", "triton"):
            self.kernel = self.kernel or self.backend
        idle = [] if self.backend in ("auto", "torch", "triton") or backend_rows(self.backend) else ["backend"]
        idle += [name for name in IDLE if getattr(self, name) != getattr(GPTQConfig, name)]
        if idle:
            warnings.warn(f"GPTQConfig: {', '.join(idle)} changes nothing: `kernel` names the kernel", stacklevel=4)
        if self.use_exllama and self.bits == 4:
            self.exllama_config = self.exllama_config or {"version": 1}

    def of_layer(self, *names: str) -> Any:
        """The configuration of the layer that has these names, by the first pattern that fits a start; None: it stays plain."""
        for pattern, options in (self.dynamic or {}).items():
            if any(re.match(pattern.removeprefix("+:").removeprefix("-:"), name) for name in names):
                found = copy.copy(self)
                vars(found).update({key: options[key] for key in OWN if key in options})
                return None if pattern.startswith("-:") else found
        return self

    def to_dict(self) -> dict[str, Any]:
        """All keys of the JSON; of calibration data and tokenizer the names, not the things."""
        values = super().to_dict()
        return {k: None if k in ("dataset", "tokenizer") and not isinstance(v, str) else v for k, v in values.items()}

    def to_dict_optimum(self) -> dict[str, Any]:
        """The keys that optimum reads."""
        return self.to_dict()

    @classmethod
    def from_dict_optimum(cls, config_dict: dict[str, Any]) -> Any:
        """The configuration of optimum's keys, which may say `disable_exllama` instead of `use_exllama`."""
        values = dict(config_dict)
        if "disable_exllama" in values:
            values["use_exllama"] = not values.pop("disable_exllama")
        return cls.from_dict(values)


class OrderedLayout:
    """What GPUs read: zero points as in the second version, columns in the order of their groups, `order` [K] if that is not theirs."""

    @staticmethod
    def pack(layer: Any, stored: dict[str, Tensor]) -> dict[str, Any]:
        codes, scales, zeros, groups = layer.unpack_codes(stored)
        order = None if OrderedLayout.of_groups(layer, groups)[1] else groups.argsort(stable=True).int()
        words = pack_words((codes if order is None else codes[:, order]).T, layer.bits)
        zeros = pack_words(zeros, layer.bits).T.contiguous()
        return {"qweight": words, "qzeros": zeros, "scales": scales.T.contiguous(), "order": order}

    @staticmethod
    def unpack(layer: Any, held: dict[str, Any]) -> dict[str, Tensor]:
        codes, groups = unpack_words(held["qweight"], layer.bits).T, None
        if held["order"] is not None:
            back = held["order"].argsort()
            codes, groups = codes[:, back], back // layer.group_size
        zeros = unpack_words(held["qzeros"].T, layer.bits)
        return layer.pack_codes(GroupwiseCodes(codes, held["scales"].T, zeros, groups))

    @staticmethod
    def of_groups(layer: Any, groups: Tensor) -> tuple[bool, bool]:
        """Whether all groups have as many columns, and whether these are consecutive."""
        expected = torch.arange(layer.in_features, device=groups.device) // layer.group_size
        return torch.equal(groups.sort().values, expected), torch.equal(groups, expected)


class GPTQLinear(GroupwiseLinear):
    """A linear layer of GPTQ's codes; the format is the table at the top."""

    stored: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales", "g_idx")
    packing: ClassVar[Packing] = Packing(word="int32", is_ordered=True)  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton", template="groupwise_matmul.triton.py.j2", layout=OrderedLayout, device="cuda", package="triton"
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
        *GPTQMODEL_ROWS,
    )

    def __init__(self, linear: nn.Linear, config: GPTQConfig) -> None:
        super().__init__(linear, config, config.bits, config.group_size)
        vars(self)["kernels"] = (*backend_rows(config.backend), *self.kernels)
        self.symmetric = config.sym
        # The first version stores words of zero points less a one for each: a zero point of 0 borrows from the next.
        ones = sum(1 << shift for shift in range(0, 32, self.bits)) if 32 % self.bits == 0 else 0
        self.zero_word = ones if config.checkpoint_format == "gptq" else 0
        # Those of 3 bits are shifted one by one.
        self.is_shifted = config.checkpoint_format == "gptq" and self.bits == 3

    def empty_tensors(self) -> dict[str, Tensor]:
        groups, words = -(-self.in_features // self.group_size), self.bits * self.in_features // 32
        tensors = {
            "qweight": torch.empty(words, self.out_features, dtype=torch.int32),
            "qzeros": torch.empty(groups, self.bits * self.out_features // 32, dtype=torch.int32),
            "scales": torch.empty(groups, self.out_features, dtype=torch.float16),
            "g_idx": torch.empty(self.in_features, dtype=torch.int32),
        }
        return {name: tensors[name] for name in self.stored}

    def usual_tensors(self) -> dict[str, Tensor]:
        return {"g_idx": torch.arange(self.in_features, dtype=torch.int32) // self.group_size}

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """By columns, if these are in the order of their groups: then a part's `g_idx` is the usual one."""
        rows = {"qweight": 1, "qzeros": 1, "scales": 1, "g_idx": None}
        return rows, {"qweight": 0, "qzeros": 0, "scales": 0}

    def part_multiples(self) -> tuple[int, int]:
        """Of rows and columns, those that fill whole words and groups."""
        count = 32 if self.bits == 3 else 32 // self.bits
        return count, math.lcm(count, self.group_size)

    def fits(self) -> bool:
        rows, columns = self.part_multiples()
        return self.out_features % rows == self.in_features % columns == 0

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Round-to-nearest."""
        codes = round_groups(weight, self.bits, self.group_size, self.symmetric)
        return self.pack_codes(codes._replace(scales=codes.scales.half()))

    def why_not(self, kernel: Kernel) -> str:
        if kernel.layout is None:
            return ""
        equal, consecutive = OrderedLayout.of_groups(self, self.stored_tensors()["g_idx"])
        if kernel.package:  # it reads OrderedLayout
            return "" if equal else "its groups differ in size"
        return "" if consecutive else "it reads groups of consecutive columns, and these are in another order"

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        codes = unpack_words(stored["qweight"], self.bits).T  # [N, K]
        zeros = unpack_words(stored["qzeros"].T + self.zero_word, self.bits)  # [N, G]
        zeros = (zeros + 1) & 7 if self.is_shifted else zeros
        return GroupwiseCodes(codes, stored["scales"].T, zeros, stored.get("g_idx"))

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes, scales, zeros, groups = weight
        if groups is None:
            groups = torch.arange(self.in_features, dtype=torch.int32, device=codes.device) // self.group_size
        zeros = (zeros - 1) & 7 if self.is_shifted else zeros
        tensors = {
            "qweight": pack_words(codes.T, self.bits),
            "qzeros": (pack_words(zeros, self.bits) - self.zero_word).T.contiguous(),
            "scales": scales.T.contiguous(),
            "g_idx": groups.int(),
        }
        return {name: tensors[name] for name in self.stored}


class GptqHfQuantizer(HfQuantizer):
    """Reads and makes GPTQ's packed layers."""

    auto_quantizer: ClassVar[str] = "gptq"
    requires_calibration: ClassVar[bool] = True
    linear_class: ClassVar[Any] = GPTQLinear
    packed_tensor: ClassVar[str] = "qweight"

    def means(self, name: str, linear: nn.Linear) -> bool:
        return self.quantization_config.of_layer(name, self.prefix + name) is not None

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        """The packed layer; None where the configuration, or its sizes, leave it plain."""
        config = self.quantization_config.of_layer(name, self.prefix + name)
        if config is None:
            return None
        layer = self.linear_class(linear, config)
        return layer if layer.fits() or self.pre_quantized else None

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Quantizes plain weights block by block, each group of layers with the inputs that the ones before leave it."""
        config = self.quantization_config
        if self.pre_quantized:
            return
        samples = tokenize_samples(config.dataset, config.tokenizer, config.model_seqlen)
        samples = batch_samples(samples, config.batch_size, config.pad_token_id)
        blocks = find_blocks(model, config.block_name_to_quantize)
        skipped = self.get_modules_to_not_convert(model)
        names = {module: name for name, module in linears_to_convert(model, skipped).items()}

        def visit(block: nn.Module, run: Any) -> None:
            inside = {name: module for name, module in block.named_modules() if module in names}
            groups = config.modules_in_block_to_quantize or group_by_input(inside, run)
            for group in groups if config.true_sequential else [[name for names in groups for name in names]]:
                linears = {name: inside[name] for name in group if name in inside}
                for name, hessian in input_hessians(linears, run).items():
                    packed = self.make_linear(names[linears[name]], linears[name])
                    if packed is not None:
                        codes = solve_codes(linears[name].weight, hessian, packed, packed.config.damp_percent)
                        packed.hold(packed.pack_codes(codes._replace(scales=codes.scales.half())))
                        set_module(model, names[linears[name]], packed)

        visit_blocks(model, blocks, samples, visit, config.cache_block_outputs)

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers of blocks that stay plain: gptqmodel goes by patterns, transformers by the names of those that do not."""
        values = super().saved_config(model)
        config = self.quantization_config
        if self.pre_quantized:
            return values
        blocks = find_blocks(model, config.block_name_to_quantize)
        inside, linears = set(blocks.modules()), linears_to_convert(model, ())
        plain: dict[str, Any] = {f"-:{re.escape(name)}$": {} for name, linear in linears.items() if linear in inside}
        if plain:
            values["dynamic"] = {**plain, **(config.dynamic or {})}
            packed = sorted({name for block in blocks for name in packed_layers(block)})
            values["modules_in_block_to_quantize"] = config.modules_in_block_to_quantize or [packed]
        return values


def input_hessians(linears: dict[str, nn.Linear], run: Any) -> dict[str, Tensor]:
    """2 XᵀX / n of each layer's inputs X [n, K] while `run` runs (section 3.1: the Hessian of the squared error)."""
    sums = {name: torch.zeros(linear.in_features, linear.in_features) for name, linear in linears.items()}
    counts = dict.fromkeys(linears, 0)

    def add(name: str, x: Tensor) -> None:
        rows = x.detach().float().flatten(0, -2)
        sums[name] = sums[name].to(rows.device).addmm(rows.T, rows, alpha=2)
        counts[name] += len(rows)

    watch_inputs(linears, add, run)
    return {name: total / max(1, counts[name]) for name, total in sums.items()}


def solve_codes(weight: Tensor, hessian: Tensor, layer: Any, damp: float, block_size: int = 128) -> GroupwiseCodes:
    """Codes of a weight [N, K] for inputs with this Hessian [K, K]: algorithm 1, columns in blocks, lazy updates.

    A column's rounding error is made up for by the columns after it, through the Cholesky factor of the inverse Hessian.
    """
    weight, hessian = weight.detach().float().clone(), hessian.clone()
    columns, size, top = weight.shape[1], layer.group_size, 2**layer.bits - 1
    dead = hessian.diagonal() == 0  # inputs that were never seen
    hessian.diagonal()[dead] = 1
    weight[:, dead] = 0
    order = torch.arange(columns, device=weight.device)
    in_groups = order.view(-1, size)
    if layer.config.desc_act:
        order = hessian.diagonal().argsort(descending=True)
    elif layer.config.act_group_aware:
        sizes = hessian.diagonal().view(-1, size)
        in_groups = in_groups.gather(1, sizes.argsort(descending=True))
        in_groups = in_groups[sizes.amax(1).argsort(descending=True)]
        order = in_groups.flatten()
    weight, hessian = weight[:, order], hessian[order][:, order]
    factor = inverse_factor(hessian, damp)
    codes, groups = torch.empty_like(weight, dtype=torch.uint8), []
    for start in range(0, columns, block_size):
        block, rows = weight[:, start : start + block_size], factor[start : start + block_size]
        before, errors = block.clone(), torch.empty_like(block)
        for index in range(block.shape[1]):
            column = start + index
            if column % size == 0:  # a new group, of the columns as this block found them
                inside = before[:, index : index + size]
                inside = inside if inside.shape[1] == size else weight[:, column : column + size]
                groups.append(round_groups(inside, layer.bits, size, layer.symmetric))
            scale, zero = groups[-1].scales[:, 0], groups[-1].zeros[:, 0]
            code = ((block[:, index] / scale).round() + zero).clamp(0, top)
            codes[:, column] = code
            errors[:, index] = (block[:, index] - (code - zero) * scale) / rows[index, column]
            block[:, index + 1 :] -= errors[:, index, None] * rows[index, column + 1 : start + block.shape[1]]
        weight[:, start + block_size :] -= errors @ rows[:, start + block_size :]
    back = order.argsort()
    scales, zeros = (torch.cat([getattr(group, name) for group in groups], 1) for name in ("scales", "zeros"))
    if not layer.config.desc_act:  # groups are those of consecutive columns, whatever their order was
        place = (in_groups[:, 0] // size).argsort()
        return GroupwiseCodes(codes[:, back], scales[:, place], zeros[:, place], back.sort().values.int() // size)
    return GroupwiseCodes(codes[:, back], scales, zeros, (back // size).int())


def inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """The upper Cholesky factor of the inverse Hessian; where few inputs leave it singular, it is damped a hundredth more each time."""
    mean = hessian.diagonal().mean()
    for more in range(100):
        damped = hessian.clone()
        damped.diagonal().add_((damp + more / 100) * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return factor
    raise ValueError(
        f"GPTQ's Hessian cannot be inverted with damp_percent {damp}: its largest entry is {hessian.abs().max()}"
    )
