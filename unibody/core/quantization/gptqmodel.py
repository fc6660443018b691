"""gptqmodel's kernels for CUDA. No GPU has verified them here: their rows stand after `torch`, so they run only where they are named."""

from __future__ import annotations

from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.packing import pack_words, unpack_words

Q_MATRICES = WeakTensorKeyDictionary()  # ExllamaV2's handles of words, with the tensors that they point to


class MarlinLayout:
    """The words of the layer's Triton kernel in Marlin's order; which that is, tells its function: it orders the codes' numbers too."""

    @classmethod
    def pack(cls, layer: Any, stored: dict[str, Tensor]) -> dict[str, Any]:
        return cls.repack(layer, plain_layout(layer).pack(layer, stored))

    @classmethod
    def unpack(cls, layer: Any, held: dict[str, Any]) -> Any:
        bits, words = layer.bits, held["qweight"]
        numbers = torch.arange(layer.in_features * layer.out_features, device=words.device).view(layer.in_features, -1)
        places = torch.zeros_like(numbers).flatten()
        for shift in range(0, len(places).bit_length(), bits):  # as many bits of the numbers as a code has
            digits = {**held, "qweight": pack_words(numbers >> shift & 2**bits - 1, bits)}
            places |= unpack_words(cls.repack(layer, digits)["qweight"].flatten(), bits).long() << shift
        codes = unpack_words(words.flatten(), bits)[places.argsort()].view_as(numbers)
        return plain_layout(layer).unpack(layer, {**held, "qweight": pack_words(codes, bits)})

    @staticmethod
    def repack(layer: Any, held: dict[str, Any]) -> dict[str, Any]:
        marlin, zeros, none = vendor("marlin"), uneven_zeros(layer, held), held["qweight"].new_empty(0)
        sizes = layer.in_features, layer.out_features
        return {
            **held,
            "qweight": marlin.gptq_marlin_repack(held["qweight"], none, *sizes, layer.bits),
            "group_scales": marlin.marlin_permute_scales(held["scales"], *sizes, layer.group_size),
            "group_zeros": None if zeros is None else marlin.marlin_zero_points(zeros.int(), *zeros.shape, layer.bits),
            "workspace": marlin.marlin_make_workspace_new(none.device),
        }

    @staticmethod
    def multiply(layer: Any, held: dict[str, Any], x: Tensor) -> Any:
        zeros, none, sizes = held["group_zeros"], x.new_empty(0, dtype=torch.int32), (layer.out_features, x.shape[1])
        groups = held["group_scales"].to(x.dtype), none if zeros is None else zeros, none, none, held["workspace"]
        kind = code_type(layer, zeros)
        return vendor("marlin").apply_gptq_marlin_linear(x, held["qweight"], *groups, kind, *sizes, is_k_full=True)


class MacheteLayout(MarlinLayout):
    """The same in Machete's order, zero points in units of the weight."""

    @staticmethod
    def repack(layer: Any, held: dict[str, Any]) -> dict[str, Any]:
        zeros, words = uneven_zeros(layer, held), held["qweight"].T.contiguous().T
        words = vendor("machete").machete_prepack_B(words, torch.float16, code_type(layer, zeros), torch.float16)
        return {**held, "qweight": words, "group_zeros": None if zeros is None else -held["scales"] * zeros}

    @staticmethod
    def multiply(layer: Any, held: dict[str, Any], x: Tensor) -> Any:
        zeros, kind = held["group_zeros"], code_type(layer, held["group_zeros"])
        groups = {"b_group_scales": held["scales"].to(x.dtype), "b_group_size": layer.group_size}
        offsets = {} if zeros is None else {"b_group_zeros": zeros.to(x.dtype)}
        return vendor("machete").machete_mm(a=x, b_q=held["qweight"], b_type=kind, **groups, **offsets)


class ExllamaLayout(MarlinLayout):
    """The same in ExllamaV2's order, into which it brings words where they lie, and has a handle for them."""

    @staticmethod
    def repack(layer: Any, held: dict[str, Any]) -> dict[str, Any]:
        words, zeros, scales = held["qweight"], held["qzeros"], held["scales"].half()
        scratch = shared_scratch(words.device, layer.in_features * layer.out_features + 64)
        handle = vendor("exllamav2").exllamav2_make_q_matrix(words, *[None] * 5, zeros, scales, None, scratch)
        Q_MATRICES[words] = handle, zeros, scales
        return held

    @classmethod
    def multiply(cls, layer: Any, held: dict[str, Any], x: Tensor) -> Tensor:
        if held["qweight"] not in Q_MATRICES:  # of a copy of the layer
            held.update(cls.pack(layer, layer.stored_tensors()))
        y = x.new_empty(len(x), layer.out_features, dtype=torch.float16)
        vendor("exllamav2").exllamav2_gemm_half_q_half(x.half(), Q_MATRICES[held["qweight"]][0], y)
        return y.to(x.dtype)


@cache
def shared_scratch(device: torch.device, size: int) -> Tensor:
    """Where ExllamaV2 dequantizes a weight for large products: one for all weights of a size."""
    return torch.empty(size, dtype=torch.float16, device=device)


def plain_layout(layer: Any) -> Any:
    """That of the layer's Triton kernel."""
    return globals()[next(row.layout for row in layer.kernels if row.name == "triton")]


def vendor(name: str) -> Any:
    return import_module(f"gptqmodel.utils.{name}")


def uneven_zeros(layer: Any, held: dict[str, Any]) -> Tensor | None:
    """Zero points [G, N]; None if all are the middle code."""
    zeros = unpack_words(held["qzeros"].T, layer.bits).T
    return None if bool((zeros == 2 ** (layer.bits - 1)).all()) else zeros


def code_type(layer: Any, zeros: Tensor | None) -> Any:
    name = f"uint{layer.bits}" + (f"b{2 ** (layer.bits - 1)}" if zeros is None else "")
    return getattr(vendor("marlin_scalar_type").scalar_types, name)


def gptqmodel_matmul(layer: Any, x: Tensor) -> Tensor:
    """[..., N] of inputs [..., K] in 16 bits."""
    held, order = layer._buffers, layer._buffers.get("order")
    rows = (x if order is None else x[..., order]).reshape(-1, layer.in_features).contiguous()
    y: Tensor = layer.layout.multiply(layer, held, rows)
    y = y if layer.bias is None else y + layer.bias.to(y.dtype)
    return y.view(*x.shape[:-1], -1)


gptqmodel_row = partial(
    Kernel, entry=gptqmodel_matmul.__name__, device="cuda", dtypes=("float16", "bfloat16"), package="gptqmodel>=7.6"
)
GPTQMODEL_ROWS = tuple(
    gptqmodel_row(
        name, layout=layout.__name__, capability=least, below=below, bits=bits, group_size=sizes, multiples=by
    )
    for name, layout, least, below, bits, sizes, by in (
        ("marlin", MarlinLayout, (8, 0), (), (4, 8), (-1, 32, 64, 128), (64, 128)),
        ("machete", MacheteLayout, (9, 0), (10, 0), (4, 8), (-1, 64, 128), (128, 64)),
        ("exllama_v2", ExllamaLayout, (0, 0), (), (4,), (-1, 32, 64, 128), (32, 32)),
    )
)


def backend_rows(backend: Any) -> tuple[Kernel, ...]:
    """The row that a backend such as `marlin`, `gptq_marlin` or `gptqmodel:marlin` means, where there is CUDA; it goes before others."""
    name = backend.replace("exllamav2", "exllama_v2")  # as auto-round calls it
    return tuple(row for row in GPTQMODEL_ROWS if name.endswith(row.name) and torch.cuda.is_available())
