"""AWQ, activation-aware quantization: scales that protect the columns that matter, then round-to-nearest (2306.00978).

W[n, k] = (code[n, k] − zero[n, k // g]) · scale[n, k // g], codes of 4 bits; with G groups in a row:

| version | `qweight` | zero points | `scales` float16 |
|---|---|---|---|
| `gemm`, `exllama` | int32 [K, N / 8], columns in the order 0 2 4 6 1 3 5 7 | `qzeros` int32 [G, N / 8], so too | [G, N] |
| `gemv` | int32 [N, K / 8], in sequence | `qzeros` int32 [N, words] | [N, 8 · words] |
| `gemv_fast` | int16 [N / 4, K], four rows interleaved | `qzeros` float16 [8 · words, N] = −scale · zero | [8 · words, N] |
| `llm-awq` | as `gemv_fast` | `scaled_zeros`, so too | so too |

words: G / 8, rounded up, and to 2 for g = 64 and to 4 for g = 32; sums in float32.
"""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.quantization.affine import GroupwiseCodes, dequantize_groups
from unibody.core.quantization.calibration import (
    find_blocks,
    require_dataset,
    run_block,
    tokenize_samples,
    visit_blocks,
)
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.config import QuantizationConfigMixin, require_choice, require_exllama_version
from unibody.core.quantization.fusing import fuse_layers
from unibody.core.quantization.gptqmodel import GPTQMODEL_ROWS, backend_rows
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.interleave import pack_interleaved, unpack_interleaved
from unibody.core.quantization.kernels import Kernel, Packing
from unibody.core.quantization.packing import pack_words, unpack_words
from unibody.core.quantization.plain_layers import with_plain_layers
from unibody.core.quantization.quantizer import HfQuantizer
from unibody.core.quantization.replacement import linears_to_convert, set_module
from unibody.core.quantization.scaling import Scaling, apply_scales, find_scalings, require_scalable

__all__ = ["AWQLinear", "AwqConfig", "AwqHfQuantizer"]

BACKENDS = (
    *("auto", "autoawq", "llm-awq", "auto_trainable", "machete", "marlin", "exllama_v2", "exllama_v1", "gemm"),
    *("gemm_triton", "gemv", "gemv_fast", "torch_awq", "torch_fused_awq"),
)
KERNELS = {"torch_awq": "torch", "torch_fused_awq": "int4pack_cpu", "gemm_triton": "triton"}  # of backends
FAST_ORDER = torch.arange(32).view(4, 4, 2).transpose(0, 1).reshape(4, 4, 2).transpose(1, 2).flatten()


@dataclass(eq=False)
class AwqConfig(QuantizationConfigMixin):
    """How a model was, or is to be, quantized with AWQ."""

    quant_method: ClassVar[str] = "awq"
    written_if_set: ClassVar[tuple[str, ...]] = ("do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config")
    loading_attributes: ClassVar[tuple[str, ...]] = written_if_set

    bits: int = 4
    group_size: int = 128  # columns that share a scale; -1: all of a row
    zero_point: bool = True
    version: str = "gemm"
    backend: str = "autoawq"  # which kernels run it; `llm-awq` is also a version
    do_fuse: bool | None = None  # layers that share their input run as one
    fuse_max_seq_len: int | None = None  # asked for as elsewhere; sequences have no limit here
    modules_to_fuse: dict[str, Any] | None = None
    modules_to_not_convert: list[str] | None = None
    exllama_config: dict[str, int] | None = None
    _: KW_ONLY
    tokenizer: Any = None
    dataset: list[Any] | str | None = None
    format: str | None = None  # the newer name of `version`
    model_seqlen: int | None = None
    block_name_to_quantize: str | None = None
    damp_percent: float = 0.1
    desc_act: bool = False
    act_group_aware: bool = True
    sym: bool = True
    true_sequential: bool = True
    meta: dict[str, Any] | None = None
    module_name_preceding_first_block: list[str] | None = None
    batch_size: int = 1
    pad_token_id: int | None = None
    max_input_length: int | None = None
    cache_block_outputs: bool = True
    modules_in_block_to_quantize: list[list[str]] | None = None

    def post_init(self) -> None:
        if self.bits != 4:
            raise ValueError(f"AwqConfig: bits is {self.bits}, expected 4: its formats have words of eight codes")
        require_choice(self, "backend", BACKENDS)
        if self.backend == "llm-awq":
            self.version = self.format = "llm-awq"
        named = {str(name).lower() for name in (self.format, self.version) if name is not None} - {AwqConfig.version}
        if len(named) > 1:
            names = f"format {self.format!r} and version {self.version!r}"
            raise ValueError(f"AwqConfig: {names} contradict each other: leave out one")
        self.version = self.format = named.pop() if named else AwqConfig.version
        require_choice(self, "version", ("gemm", "gemv", "exllama", "gemv_fast", "llm-awq"))
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"AwqConfig: group_size is {self.group_size}, expected -1 (a whole row) or columns")
        self.kernel = self.kernel or KERNELS.get(self.backend)
        names_rows = self.backend in ("auto", "autoawq", "llm-awq", *KERNELS) or backend_rows(self.backend)
        idle = [] if names_rows else ["backend"]
        self.backend = "auto" if self.backend in ("autoawq", "llm-awq") else self.backend
        usual = {"version": 2, "max_input_len": 2048, "max_batch_size": 8} if self.version == "exllama" else None
        idle += [] if self.exllama_config in (None, usual) else ["exllama_config"]
        require_exllama_version(self)
        self.exllama_config = self.exllama_config or usual
        require_dataset(self)
        for kind, least in (("attention", 3), ("mlp", 2)):
            names = (self.modules_to_fuse or {}).get(kind, FUSED[kind])
            if not isinstance(names, list) or len(names) < least or not all(isinstance(name, str) for name in names):
                raise ValueError(
                    f"AwqConfig: modules_to_fuse has {kind} {names!r}, expected names such as {FUSED[kind]}"
                )
        idle += [f"modules_to_fuse[{key!r}]" for key in self.modules_to_fuse or {} if key not in FUSED]
        if self.do_fuse and self.fuse_max_seq_len is None:
            raise ValueError("AwqConfig: do_fuse is True, and fuse_max_seq_len is None: say the longest sequence")
        idle += [name for name in IDLE if getattr(self, name) != getattr(AwqConfig, name)]
        if idle:
            warnings.warn(f"AwqConfig: {', '.join(idle)} changes nothing in AWQ", stacklevel=4)
        if not self.do_fuse and (self.fuse_max_seq_len is not None or self.modules_to_fuse is not None):
            warnings.warn(
                "AwqConfig: fuse_max_seq_len and modules_to_fuse change nothing without do_fuse", stacklevel=4
            )

    def to_dict(self) -> dict[str, Any]:
        """All keys of the JSON; of calibration data and tokenizer the names, not the things."""
        values = super().to_dict()
        return {k: None if k in ("dataset", "tokenizer") and not isinstance(v, str) else v for k, v in values.items()}


FUSED = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"], "mlp": ["gate_proj", "up_proj", "down_proj"]}
IDLE = (
    *("damp_percent", "desc_act", "act_group_aware", "sym", "true_sequential", "module_name_preceding_first_block"),
    *("batch_size", "pad_token_id", "max_input_length", "cache_block_outputs", "modules_in_block_to_quantize"),
)


class AWQLinear(GroupwiseLinear):
    """A linear layer of AWQ's codes; the formats are the table at the top."""

    packing: ClassVar[Packing] = Packing(word="int32")  # of ColumnsLayout
    kernels: ClassVar[tuple[Kernel, ...]] = (
        Kernel(
            "triton",
            template="groupwise_matmul.triton.py.j2",
            layout=ColumnsLayout,
            device="cuda",
            package="triton",
            bits=(4,),
            multiples=(8, 8),
        ),
        *GroupwiseLinear.kernels,
        *GPTQMODEL_ROWS,
    )

    def __init__(self, linear: nn.Linear, config: AwqConfig) -> None:
        super().__init__(linear, config, config.bits, config.group_size)
        vars(self)["kernels"] = (*backend_rows(config.backend), *self.kernels)
        self.version = config.version
        self.shared: Any = None  # layers with the same input, with which it runs as one

    @property
    def group_count(self) -> int:
        return -(-self.in_features // self.group_size)

    @property
    def padded_count(self) -> int:
        multiple = {64: 2, 32: 4}.get(self.group_size, 1)
        return 8 * multiple * -(-self.group_count // (8 * multiple))

    def empty_tensors(self) -> dict[str, Tensor]:
        words, shape = torch.int32, (self.out_features, self.in_features)
        sizes = {
            "qweight": ((shape[1], shape[0] // 8), words),
            "qzeros": ((self.group_count, shape[0] // 8), words),
            "scales": ((self.group_count, shape[0]), torch.float16),
        }
        if self.version == "gemv":
            sizes["qweight"] = (shape[0], shape[1] // 8), words
            sizes["qzeros"] = (shape[0], self.padded_count // 8), words
            sizes["scales"] = (shape[0], self.padded_count), torch.float16
        if self.version in ("gemv_fast", "llm-awq"):
            sizes["qweight"] = (shape[0] // 4, shape[1]), torch.int16
            sizes["qzeros"] = sizes["scales"] = (self.padded_count, shape[0]), torch.float16
        if self.version == "llm-awq":
            sizes["scaled_zeros"] = sizes.pop("qzeros")
        return {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in sizes.items()}

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        super().hold(tensors, layout)
        self.shared = None

    def stored_tensors(self) -> dict[str, Tensor]:
        if self.shared is not None:
            return dict(self.shared.stored_tensors(self))
        return super().stored_tensors()

    def forward(self, x: Tensor) -> Tensor:
        if self.shared is not None:
            return self.shared.outputs(self, x)
        return super().forward(x)

    def slices(self) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """Of gemm's words; the others pad their groups."""
        if self.version not in ("gemm", "exllama"):
            return {}, {}
        return {"qweight": 1, "qzeros": 1, "scales": 1}, {"qweight": 0, "qzeros": 0, "scales": 0}

    def part_multiples(self) -> tuple[int, int]:
        return 8, self.group_size

    def fits(self) -> bool:
        """Whether the weight's sizes fill whole words and groups."""
        rows, columns = {"gemv": (1, 8), "gemv_fast": (8, 64), "llm-awq": (8, 64)}.get(self.version, (8, 1))
        return self.out_features % rows == self.in_features % columns == self.in_features % self.group_size == 0

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Round-to-nearest, in float16."""
        codes = round_ranges(weight.half(), self.bits, self.group_size, self.config.zero_point)
        return self.pack_codes(codes)

    def pack_codes(self, weight: GroupwiseCodes) -> dict[str, Tensor]:
        codes, scales, zeros, _ = weight
        if self.version in ("gemm", "exllama"):
            packed, packed_zeros = pack_interleaved(codes.T), pack_interleaved(zeros.T)
            return {"qweight": packed, "qzeros": packed_zeros, "scales": scales.T.contiguous()}
        padding = 0, self.padded_count - self.group_count
        if self.version == "gemv":
            packed, packed_zeros = (pack_words(x.T, 4).T.contiguous() for x in (codes, F.pad(zeros, padding)))
            return {"qweight": packed, "qzeros": packed_zeros, "scales": F.pad(scales, padding)}
        stream = codes.unflatten(1, (-1, 32))[..., FAST_ORDER].flatten(1)
        stream = stream.unflatten(0, (-1, 4)).unflatten(2, (-1, 64)).transpose(1, 2).flatten(1)  # [N / 4, 4 K]
        return {
            "qweight": pack_words(stream.T, 4).T.contiguous().view(torch.int16),
            "scaled_zeros" if self.version == "llm-awq" else "qzeros": F.pad(-scales * zeros, padding).T.contiguous(),
            "scales": F.pad(scales, padding).T.contiguous(),
        }

    def unpack_codes(self, stored: dict[str, Tensor]) -> GroupwiseCodes:
        words, scales = stored["qweight"], stored["scales"]
        if self.version in ("gemm", "exllama"):
            codes, zeros = unpack_interleaved(words).T, unpack_interleaved(stored["qzeros"]).T
            return GroupwiseCodes(codes, scales.T, zeros)
        if self.version == "gemv":
            codes, zeros = (unpack_words(x.T, 4).T for x in (words, stored["qzeros"]))
            return GroupwiseCodes(codes, scales[:, : self.group_count], zeros[:, : self.group_count])
        stream = unpack_words(words.view(torch.int32).T, 4).T.unflatten(1, (-1, 4, 64))
        codes = stream.transpose(1, 2).reshape(self.out_features, -1, 32)[..., FAST_ORDER.argsort()].flatten(1)
        scales = scales[: self.group_count].T
        zeros = stored["scaled_zeros" if self.version == "llm-awq" else "qzeros"][: self.group_count].T
        zeros = (-zeros.float() / scales.float()).nan_to_num(0).round().to(torch.uint8)
        return GroupwiseCodes(codes, scales, zeros)


def in_groups(values: Tensor, group_size: int) -> Tensor:
    """[…, K] as […, G, g]; a group of -1 is all of K."""
    return values.unflatten(-1, (1, -1) if group_size == -1 else (-1, group_size))


def round_ranges(weight: Tensor, bits: int, group_size: int, zero_point: bool) -> GroupwiseCodes:
    """The nearest codes to a weight [N, K], in its own type: a group's scale is its range, or without zero point its largest magnitude."""
    groups = in_groups(weight, group_size)
    low, high, top = groups.amin(-1), groups.amax(-1), 2**bits - 1
    if zero_point:
        scales = (high - low).clamp(min=1e-5) / top
        zeros = (-(low / scales).round()).clamp(0, top)
    else:
        scales = torch.maximum(-low, high).clamp(min=1e-5) / (2 ** (bits - 1) - 1)
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    codes = ((groups / scales[..., None]).round() + zeros[..., None]).clamp(0, top)
    return GroupwiseCodes(codes.flatten(1).to(torch.uint8), scales, zeros.to(torch.uint8))


def search_scales(scaling: Scaling, x: Tensor, bits: int, group_size: int, zero_point: bool) -> Tensor:
    """[K]: what to multiply the columns of the layers by, of 20 powers of the inputs' size (equations 4 and 5)."""
    weights = [layer.weight.data for layer in scaling.layers]
    magnitudes = in_groups(torch.cat(weights).float().abs(), group_size)
    weight_mean = (magnitudes / (magnitudes.amax(-1, keepdim=True) + 1e-6)).flatten(1).mean(0)
    input_mean = x.float().abs().mean(0)
    expected, found = run_block(scaling.whole, scaling.calls), []
    for step in range(20):
        ratio = step / 20
        scales = (input_mean**ratio / (weight_mean ** (1 - ratio) + 1e-4)).clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        scales[~scales.isfinite()] = 1
        for layer, weight in zip(scaling.layers, weights, strict=True):
            codes = round_ranges(weight.float() * scales, bits, group_size, zero_point)
            layer.weight.data = (dequantize_groups(codes, torch.float32) / scales).to(weight.dtype)
        outputs = run_block(scaling.whole, scaling.calls)
        errors = [(y - z).float().square().sum() for y, z in zip(outputs, expected, strict=True)]
        found.append((float(sum(errors)), scales))
    for layer, weight in zip(scaling.layers, weights, strict=True):
        layer.weight.data = weight
    return min(found, key=lambda pair: pair[0])[1]


def search_clips(weight: Tensor, x: Tensor, bits: int, group_size: int, zero_point: bool) -> Tensor:
    """[N, G, 1]: to which magnitude each group is best clipped, of ten between its largest and 55 % of that, for inputs [n, K]."""
    groups = in_groups(x[:: max(1, len(x) // 512)].float(), group_size)  # [n, G, g]
    best = []
    for rows in weight.float().split(64):  # of the weight, so that the sums [rows, n, G] stay small
        rows = in_groups(rows, group_size)
        largest = rows.abs().amax(-1, keepdim=True)
        expected, least, chosen = torch.einsum("ngk,rgk->rng", groups, rows), None, largest
        for step in range(10):
            bound = largest * (1 - step / 20)
            clipped = rows.clamp(-bound, bound).flatten(1)
            near = dequantize_groups(round_ranges(clipped, bits, group_size, zero_point), torch.float32)
            error = torch.einsum("ngk,rgk->rng", groups, near.view_as(rows)) - expected
            error = error.square().mean(1)[..., None]
            better = torch.ones_like(error, dtype=torch.bool) if least is None else error < least
            chosen, least = torch.where(better, bound, chosen), error if least is None else error.minimum(least)
        best.append(chosen)
    return torch.cat(best)


class AwqHfQuantizer(HfQuantizer):
    """Reads and makes AWQ's packed layers."""

    auto_quantizer: ClassVar[str] = "awq"
    requires_calibration: ClassVar[bool] = True
    linear_class: ClassVar[Any] = AWQLinear
    packed_tensor: ClassVar[str] = "qweight"

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        """As for all methods; then the layers that read the same input are fused, if they are to be."""
        super().postprocess_model(model, **kwargs)
        if self.quantization_config.do_fuse:
            named = self.quantization_config.modules_to_fuse
            chosen = FUSED if named is None else named
            groups = [chosen[kind][:count] for kind, count in (("attention", 3), ("mlp", 2)) if kind in chosen]
            fused = [fuse_layers(model, [group]) for group in groups]
            if not all(fused) if named else not any(fused):
                raise ValueError(f"AwqConfig: modules_to_fuse names no packed layers of the model: {chosen}")
        return model

    def saved_config(self, model: Any) -> dict[str, Any]:
        """Also the layers that do not fill whole words and groups."""
        return with_plain_layers(self, model, self.skipped_by, self.get_modules_to_not_convert(model))

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Scales, clips and rounds plain weights block by block, each block with the inputs that the plain model has there."""
        config = self.quantization_config
        if self.pre_quantized:
            return
        how = config.bits, config.group_size, config.zero_point
        samples = tokenize_samples(config.dataset, config.tokenizer, config.model_seqlen)
        linears = linears_to_convert(model, self.get_modules_to_not_convert(model))
        names = {module: name for name, module in linears.items()}

        def visit(block: nn.Module, run: Any) -> Any:
            inside = {module: names[module] for module in block.modules() if module in names}
            packed = {linear: layer for linear, name in inside.items() if (layer := self.make_linear(name, linear))}
            readers = [
                module for module in block.modules() if isinstance(module, nn.Linear)
            ]  # those that stay plain, too
            scalings, inputs, outputs = find_scalings(block, readers, run)
            scalings = [one for one in scalings if not packed.keys().isdisjoint(one.layers)]
            require_scalable(scalings, outputs, run)
            searched = [search_scales(one, inputs[one.layers[0]], *how) for one in scalings]
            for scaling, scales in zip(scalings, searched, strict=True):
                apply_scales(scaling, scales)
                for layer in scaling.layers:
                    inputs[layer] = inputs[layer] / scales
            for linear, layer in packed.items():
                weight = linear.weight.detach()
                if not inside[linear].endswith(("q_proj", "k_proj", "query", "key")):
                    clips = search_clips(weight, inputs[linear], *how)
                    weight = weight.view(*clips.shape[:2], -1).clamp(-clips, clips).flatten(1)
                layer.hold(layer.quantize(weight))
                set_module(model, inside[linear], layer)
            return outputs

        visit_blocks(model, find_blocks(model, config.block_name_to_quantize), samples, visit)
