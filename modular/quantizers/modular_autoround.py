"""AutoRound: group-wise integer codes whose rounding is learned by signed gradient descent, block by block (2309.05516).

| | |
|---|---|
| weight | W[n, k] = (code[n, k] − zero[n, g]) · scale[n, g], g = k // group_size; a scale may be negative |
| `packing_format` | `auto_round:auto_gptq` (or `…:gptq`), `auto_round:gptqmodel` (zero points not less one), `auto_round:auto_awq` |
| `qweight` | int32 [K · bits / 32, N]: a stream of bits down K, the first code lowest; awq: [K, N / 8], columns 0 2 4 6 1 3 5 7 |
| `qzeros` | int32 [G, N · bits / 32]: words along N of zero − 1; awq and gptqmodel: of zero |
| `scales` | float16 [G, N] |
| sums | float32 |
"""

from __future__ import annotations

import re
import warnings
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes
from unibody.core.quantization.calibration import (
    block_inputs,
    find_blocks,
    progress,
    require_dataset,
    run_block,
    tokenize_samples,
    with_inputs,
)
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice
from unibody.core.quantization.gptqmodel import GPTQMODEL_ROWS, backend_rows
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.int8_groups import Int8GroupsLayout, int8_groups_matmul
from unibody.core.quantization.interleave import pack_interleaved, unpack_interleaved
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.quantizer import packed_layers
from unibody.core.quantization.replacement import linears_to_convert, names_module, output_modules, set_module
from unibody.core.quantization.rounding import Rounding, round_shifted, tune_block

from .modular_gptq import GptqHfQuantizer, GPTQLinear

__all__ = ["AutoRoundConfig", "AutoRoundLinear", "AutoRoundQuantizer"]

OWN = "bits", "group_size", "sym"  # what a layer may have for itself
VERSIONS = {
    "auto_round": "gptq_v2",
    "auto_round:gptqmodel": "gptq_v2",
    "auto_round:gptq": "gptq",
    "auto_round:auto_gptq": "gptq",
    "auto_round:auto_awq": "awq",
    "auto_round:awq": "awq",
}


@dataclass(eq=False)
class AutoRoundConfig(QuantizationConfigMixin):
    """How a model was, or is to be, quantized with AutoRound."""

    quant_method: ClassVar[str] = "auto-round"
    written_if_set: ClassVar[tuple[str, ...]] = (
        *("layer_config", "dataset", "tokenizer", "iters", "seqlen", "nsamples", "batch_size", "lr", "seed"),
        *("enable_quanted_input", "block_name_to_quantize", "modules_to_not_convert"),
    )
    ignored_keys: ClassVar[tuple[str, ...]] = ("amp", "autoround_version", "data_type")
    desc_act: ClassVar[bool] = False

    bits: int = 4
    group_size: int = 128  # columns that share a scale; -1: all of a row
    sym: bool = True
    backend: str = "auto"
    _: KW_ONLY
    packing_format: str = "auto_round:gptq"
    layer_config: dict[str, dict[str, Any]] | None = None  # by name or pattern; of 16 bits: plain
    dataset: list[Any] | str | None = None
    tokenizer: Any = None
    iters: int = 200  # steps of a block; 0: round-to-nearest, without data
    seqlen: int = 2048
    nsamples: int = 128
    batch_size: int = 8  # samples in a step
    lr: float | None = None  # 1 / iters, if None
    seed: int = 42
    enable_quanted_input: bool = True  # whether a block is tuned on what the quantized blocks before it return
    block_name_to_quantize: str | None = None
    modules_to_not_convert: list[str] | None = None

    def post_init(self) -> None:
        require_choice(self, "bits", (2, 3, 4, 8))
        require_choice(self, "packing_format", VERSIONS)
        if self.checkpoint_format == "awq" and self.bits != 4:
            raise ValueError(f"AutoRoundConfig: bits is {self.bits}, expected 4 with {self.packing_format}")
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"AutoRoundConfig: group_size is {self.group_size}, expected -1 (a whole row) or columns")
        for name, least in (("iters", 0), ("seqlen", 1), ("nsamples", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"AutoRoundConfig: {name} is {getattr(self, name)}, expected {least} or more")
        require_dataset(self)
        for name in self.layer_config or {}:
            self.of_layer(name)
        if self.backend in ("torch", "triton"):
            self.kernel = self.kernel or self.backend
        elif self.backend != "auto" and not backend_rows(self.backend):
            warnings.warn("AutoRoundConfig: backend changes nothing: `kernel` names the kernel", stacklevel=4)

    @property
    def checkpoint_format(self) -> str:
        return VERSIONS[self.packing_format]

    def of_layer(self, *names: str) -> Any:
        """The configuration of the layer that has these names; None: it stays plain."""
        for entry, options in (self.layer_config or {}).items():
            if names_module(entry, *names) or any(re.fullmatch(entry, name) for name in names):
                known = {key: options[key] for key in OWN if key in options}
                return None if known.get("bits", 4) >= 16 else replace(self, layer_config=None, **known)
        return self

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Also from checkpoints, which call `layer_config` `extra_config`."""
        values = {{"extra_config": "layer_config"}.get(key, key): value for key, value in config_dict.items()}
        return super().from_dict(values, return_unused_kwargs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All keys of the JSON; of calibration data and tokenizer the names, not the things."""
        values = super().to_dict()
        return {k: v for k, v in values.items() if k not in ("dataset", "tokenizer") or isinstance(v, str)}


class AutoRoundLinear(GPTQLinear):
    """A linear layer of AutoRound's codes; the format is the table at the top."""

    stored: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales")
    packing: ClassVar[Packing] = Packing(word="int32")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton", template="groupwise_matmul.triton.py.j2", layout=ColumnsLayout, device="cuda", package="triton"
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

    def empty_tensors(self) -> dict[str, Tensor]:
        if self.config.checkpoint_format == "awq":
            rows = {"qweight": self.in_features, "qzeros": -(-self.in_features // self.group_size)}
            words = self.out_features // 8
            packed = {name: torch.empty(n, words, dtype=torch.int32) for name, n in rows.items()}
            scales = torch.empty(rows["qzeros"], self.out_features, dtype=torch.float16)
            return {**packed, "scales": scales}
        return super().empty_tensors()

    def usual_tensors(self) -> dict[str, Tensor]:
        return {}

    def why_not(self, kernel: Kernel) -> str:
        return ""

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Round-to-nearest."""
        nearest = Rounding.nearest(weight, self.group_size)
        return self.pack_codes(round_shifted(weight, nearest, self.bits, self.symmetric)[0])

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        if self.config.checkpoint_format == "awq":
            codes, zeros = (unpack_interleaved(stored[name]).T for name in ("qweight", "qzeros"))
            return GroupwiseCodes(codes, stored["scales"].T, zeros)
        return super().unpack_codes(stored)

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        if self.config.checkpoint_format == "awq":
            words = {"qweight": pack_interleaved(weight.codes.T), "qzeros": pack_interleaved(weight.zeros.T)}
            return {**words, "scales": weight.scales.T.contiguous()}
        return super().pack_codes(weight)


class AutoRoundQuantizer(GptqHfQuantizer):
    """Reads and makes AutoRound's packed layers."""

    auto_quantizer: ClassVar[str] = "auto-round"
    linear_class: ClassVar[Any] = AutoRoundLinear

    def __init__(self, quantization_config: AutoRoundConfig, **kwargs: Any) -> None:
        """Zero points that are no middle are written as they are, unless other words are asked for: so does auto-round."""
        super().__init__(quantization_config, **kwargs)
        config = self.quantization_config
        if not (self.pre_quantized or config.sym) and config.packing_format == AutoRoundConfig.packing_format:
            self.quantization_config = replace(config, packing_format="auto_round:gptqmodel")

    def saved_config(self, model: Any) -> dict[str, Any]:
        """By the names that checkpoints have; also what stays plain, and heads that do not, which auto-round expects otherwise."""
        values, heads = dict(self.quantization_config.to_dict()), set(output_modules(model))
        layers = values.pop("layer_config", None) or {}
        layers |= {name: {"bits": 16, "data_type": "float"} for name in linears_to_convert(model, ())}
        for name in heads & packed_layers(model).keys():
            layers[name] = {key: getattr(self.quantization_config.of_layer(name), key) for key in OWN}
        return {**values, "extra_config": layers}

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        """Without steps, the weights are rounded while they are loaded."""
        if not self.pre_quantized and self.quantization_config.iters == 0:
            self.convert(model)
        else:
            super()._process_model_before_weight_loading(model, loaded_keys, **kwargs)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Tunes block by block, with the full outputs of two blocks at most in memory."""
        config = self.quantization_config
        if self.pre_quantized or packed_layers(model):
            return
        samples = tokenize_samples(config.dataset, config.tokenizer, config.seqlen)[: config.nsamples]
        blocks = find_blocks(model, config.block_name_to_quantize)
        linears = linears_to_convert(model, self.get_modules_to_not_convert(model))
        names = {module: name for name, module in linears.items()}
        full = calls = block_inputs(model, blocks[0], samples)
        for block in progress(blocks):
            targets = run_block(block, full)
            inside = {name: module for name, module in block.named_modules() if module in names}
            layers = {name: self.make_linear(names[module], module) for name, module in inside.items()}
            layers = {name: layer for name, layer in layers.items() if layer is not None}
            inputs = calls if config.enable_quanted_input else full
            for name, codes in tune_block(block, layers, inputs, targets, config).items():
                layers[name].hold(layers[name].pack_codes(codes))
                set_module(model, names[inside[name]], layers[name])
            calls = with_inputs(calls, run_block(block, calls))
            full = with_inputs(full, targets)
