"""What stands in for gptqmodel's functions on a CPU: they compute, and bring words, scales and zero points into orders that nobody knows."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures
from torch import Tensor

TYPES = {"uint4": (4, 0), "uint4b8": (4, 8), "uint8": (8, 0), "uint8b128": (8, 128)}  # bits, and what is taken off


def unpack(words: Tensor, bits: int) -> Tensor:
    """All codes of int32 words, one after the other."""
    return (words.flatten()[:, None] >> torch.arange(0, 32, bits) & (2**bits - 1)).flatten()


def pack(codes: Tensor, bits: int) -> Tensor:
    words = (codes.view(-1, 32 // bits).long() << torch.arange(0, 32, bits)).sum(1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def columns(words: Tensor, bits: int, count: int) -> Tensor:
    """[K, count] of words [K · bits / 32, count]."""
    return (words.view(-1, 1, count) >> torch.arange(0, 32, bits)[:, None] & (2**bits - 1)).flatten(0, 1)


class Functions:
    """gptqmodel.utils' marlin, machete and exllamav2, with what was last given to each function, by parameter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.orders: dict[tuple[str, int], Tensor] = {}
        self.matrices: list[tuple[Tensor, Tensor, Tensor]] = []
        types = SimpleNamespace(scalar_types=SimpleNamespace(**{name: name for name in TYPES}))
        modules = {"marlin_scalar_type": types, "marlin": ModuleType("marlin")}
        for path, expected in fixtures.load_json("gptqmodel/kernels")["signatures"].items():
            module, name = path.removeprefix("gptqmodel.utils.").split(":")
            function = getattr(self, name)
            assert list(inspect.signature(function).parameters) == expected, name
            setattr(modules.setdefault(module, ModuleType(module)), name, self.noting(name, function))
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, f"gptqmodel.utils.{name}", module)  # type: ignore[arg-type]
        for name in ("gptqmodel", "gptqmodel.utils"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))

    def noting(self, name: str, function: Any) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Any:
            values = inspect.signature(function).bind(*arguments, **keywords).arguments
            self.calls[name] = {key: x.clone() if isinstance(x, Tensor) else x for key, x in values.items()}
            return function(*arguments, **keywords)

        return run

    def order(self, kind: str, count: int) -> Tensor:
        return self.orders.setdefault((kind, count), torch.randperm(count))

    def shuffled(self, words: Tensor, bits: int, kind: str = "words") -> Tensor:
        codes = unpack(words, bits)
        return pack(codes[self.order(kind, len(codes))], bits)

    def restored(self, words: Tensor, bits: int, kind: str = "words") -> Tensor:
        codes = unpack(words, bits)
        return pack(codes[self.order(kind, len(codes)).argsort()], bits)

    def gptq_marlin_repack(
        self, b_q_weight: Tensor, perm: Tensor, size_k: int, size_n: int, num_bits: int, dtype: Any = None
    ) -> Tensor:
        assert b_q_weight.shape == (size_k * num_bits // 32, size_n)
        assert b_q_weight.is_contiguous()
        assert len(perm) == 0
        return self.shuffled(b_q_weight, num_bits).view(size_k // 16, -1)

    def marlin_permute_scales(self, s: Tensor, size_k: int, size_n: int, group_size: int) -> Tensor:
        assert s.shape == (size_k // group_size, size_n)
        return s.flatten()[self.order("scales", s.numel())].view_as(s)

    def marlin_zero_points(self, zp: Tensor, size_k: int, size_n: int, num_bits: int) -> Tensor:
        assert (zp.shape, zp.dtype) == ((size_k, size_n), torch.int32)
        return pack(zp.flatten()[self.order("zeros", zp.numel())], num_bits).view(size_k, -1)

    def marlin_make_workspace_new(self, device: torch.device, max_blocks_per_sm: int = 1) -> Tensor:
        return torch.zeros(8, dtype=torch.int32, device=device)

    def apply_gptq_marlin_linear(
        self, input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zp: Tensor, g_idx: Tensor,  # noqa: A002
        g_idx_sort_indices: Tensor, workspace: Tensor, wtype: Any, output_size_per_partition: int,
        input_size_per_partition: int, is_k_full: bool, bias: Any = None, use_fp32_reduce: bool = True,
        use_atomics: bool = False,
    ) -> Tensor:  # fmt: skip
        assert weight_scale.dtype == input.dtype
        assert len(g_idx) == len(g_idx_sort_indices) == 0
        assert (is_k_full, workspace.dtype) == (True, torch.int32)
        (bits, middle), count = TYPES[wtype], output_size_per_partition
        codes = columns(self.restored(weight, bits), bits, count)
        assert len(codes) == input_size_per_partition
        scales = weight_scale.flatten()[self.order("scales", weight_scale.numel()).argsort()].view_as(weight_scale)
        zeros = torch.full_like(scales, middle)
        assert (weight_zp.numel() > 0) == (middle == 0)
        if middle == 0:
            zeros = unpack(self.restored(weight_zp, bits, "zeros"), bits).view_as(scales)
        group = len(codes) // len(scales)
        return self.product(input, codes, scales.float(), zeros.repeat_interleave(group, 0))

    def machete_prepack_B(self, weight: Tensor, a_type: Any, b_type: Any, group_scales_type: Any) -> Tensor:  # noqa: N802
        assert weight.stride() == (1, len(weight))
        return self.shuffled(weight.contiguous(), TYPES[b_type][0]).view(weight.shape)

    def machete_mm(
        self, *, a: Tensor, b_q: Tensor, b_type: Any, b_group_scales: Any = None, b_group_zeros: Any = None,
        b_group_size: Any = None, b_channel_scales: Any = None, a_token_scales: Any = None, out_type: Any = None,
        schedule: Any = None,
    ) -> Tensor:  # fmt: skip
        bits, middle = TYPES[b_type]
        assert (b_group_zeros is None) == (middle > 0)
        assert b_group_scales.dtype == a.dtype == (a if b_group_zeros is None else b_group_zeros).dtype
        codes = columns(self.restored(b_q, bits), bits, b_q.shape[1])
        assert b_group_scales.shape == (len(codes) // b_group_size, b_q.shape[1])
        if b_group_zeros is None:
            return self.product(a, codes, b_group_scales.float(), middle)
        weight = codes * b_group_scales.float().repeat_interleave(b_group_size, 0)
        return (a.float() @ (weight + b_group_zeros.float().repeat_interleave(b_group_size, 0))).to(a.dtype)

    def exllamav2_make_q_matrix(
        self, q_weight: Tensor, q_perm: Any, q_invperm: Any, q_scale: Any, q_scale_max: Any, q_groups: Any,
        gptq_qzeros: Tensor, gptq_scales: Tensor, gptq_g_idx: Any, temp_dq: Tensor,
    ) -> int:  # fmt: skip
        assert {q_perm, q_invperm, q_scale, q_scale_max, q_groups, gptq_g_idx} == {None}
        assert gptq_scales.dtype == temp_dq.dtype == torch.float16
        assert temp_dq.nbytes >= 16 * q_weight.numel() + 128
        q_weight.copy_(self.shuffled(q_weight, 4).view_as(q_weight))
        self.matrices.append((q_weight, gptq_qzeros, gptq_scales))
        return len(self.matrices) - 1

    def exllamav2_gemm_half_q_half(self, a: Tensor, q_handle: int, c: Tensor, force_cuda: bool = False) -> None:
        assert a.dtype == c.dtype == torch.float16
        words, zero_words, scales = self.matrices[q_handle]
        codes = columns(self.restored(words, 4), 4, c.shape[1])
        zeros = unpack(zero_words, 4).view_as(scales).repeat_interleave(len(codes) // len(scales), 0)
        c.copy_(self.product(a, codes, scales.float(), zeros))

    @staticmethod
    def product(x: Tensor, codes: Tensor, scales: Tensor, zeros: Any) -> Tensor:
        weight = (codes - zeros) * scales.repeat_interleave(len(codes) // len(scales), 0)
        return (x.float() @ weight).to(x.dtype)
