"""Rows that call others' kernels: those that run on a CPU too, those that are traced, and stand-ins with the others' signatures."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from quantizers.files import generated, make_layer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("storage", ["uint8", "bfloat16"])
def test_bitsandbytes_reads_four_bits(kind: str, double: bool, storage: str) -> None:
    """The operator runs on a CPU as well, and takes the checkpoint's tensors as they are."""
    pytest.importorskip("bitsandbytes")
    module = generated("bitsandbytes")
    options = {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double, "bnb_4bit_quant_storage": storage}
    config = module.BitsAndBytesConfig(load_in_4bit=True, **options)
    layer = make_layer(module.Linear4bit, config, torch.randn(640, 256), torch.randn(640))
    for rows in (1, 3):
        x = torch.randn(2, rows, 256)
        with torch.no_grad():
            torch.testing.assert_close(module.bitsandbytes_matmul(layer, x), module.dequantize_matmul(layer, x))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
@pytest.mark.parametrize("has_main", [False, True])
def test_bitsandbytes_multiplies_int8(threshold: float, has_main: bool) -> None:
    pytest.importorskip("bitsandbytes")
    module = generated("bitsandbytes")
    options = {"llm_int8_threshold": threshold, "llm_int8_has_fp16_weight": has_main}
    config = module.BitsAndBytesConfig(load_in_8bit=True, **options)
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    layer = make_layer(module.Linear8bitLt, config, weight, torch.randn(64))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.randn(5, 256).to(dtype)
        with torch.no_grad():
            found, expected = module.bitsandbytes_int8_matmul(layer, x), module.int8_outlier_matmul(layer, x)
        assert found.dtype == dtype
        # In 16 bits an input between two codes may be given either: a step of one code, times a weight.
        largest = threshold or float(x.abs().max())  # of the inputs that are rounded
        step = largest * float(weight.abs().max()) / 127 if dtype.itemsize == 2 else 1e-5
        torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=step)


def test_bitsandbytes_on_cuda_is_traced() -> None:
    """The operators know shapes and types of CUDA tensors."""
    pytest.importorskip("bitsandbytes")
    module = generated("bitsandbytes")
    with FakeTensorMode():
        x = torch.empty(3, 256, dtype=torch.bfloat16, device="cuda")
        packed, scales = torch.empty(8192, 1, dtype=torch.uint8, device="cuda"), torch.empty(256, device="cuda")
        y = torch.ops.bitsandbytes.gemm_4bit(x, packed, (64, 256), scales, 64, "nf4")
        assert (y.shape, y.dtype, y.device.type) == ((3, 64), torch.bfloat16, "cuda")
    assert module.bitsandbytes_matmul.__name__ in [row.entry for row in module.Linear4bit.kernels]


class Tiles:
    """`_convert_weight_to_int4pack` and `_weight_int4pack_mm` as torch describes them, their order of codes being any."""

    def __init__(self) -> None:
        self.order = torch.randperm(1024)

    def pack(self, pairs: Tensor, inner: int) -> Tensor:
        assert (pairs.dtype, inner, pairs.shape[0] % 8, pairs.shape[1] % 64) == (torch.uint8, 8, 0, 0)
        codes = torch.stack((pairs >> 4, pairs & 15), -1).flatten(1)
        tiles = codes.unflatten(1, (-1, 128)).unflatten(0, (-1, 8)).transpose(1, 2).flatten(2)[..., self.order]
        words = (tiles.unflatten(2, (-1, 8)).long() << torch.arange(0, 32, 4)).sum(-1)
        return torch.where(words >= 2**31, words - 2**32, words).int().unflatten(2, (32, 4))

    def multiply(self, x: Tensor, packed: Tensor, group: int, scales_and_offsets: Tensor) -> Tensor:
        nibbles = (packed.flatten(2)[..., None] >> torch.arange(0, 32, 4) & 15).flatten(2)[..., self.order.argsort()]
        codes = nibbles.unflatten(2, (8, 128)).transpose(1, 2).flatten(2).flatten(0, 1)
        scales, offsets = (part.T.float().repeat_interleave(group, 1) for part in scales_and_offsets.unbind(-1))
        return (x.float() @ ((codes - 8) * scales + offsets).T).to(x.dtype)


@pytest.mark.parametrize(
    ("name", "layer_class", "options"),
    [
        ("gptq", "GPTQLinear", {"bits": 4, "group_size": 64, "sym": False}),
        ("awq", "AWQLinear", {"group_size": 64}),
        ("hqq", "HQQLinear", {"nbits": 4}),
        ("quanto", "QuantoLinear", {"weights": "int4"}),
    ],
)
def test_tiles(name: str, layer_class: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's kernel for CUDA gets codes and groups as it wants them; the checkpoint's come back to the bit, in whatever order it packs."""
    module, tiles = generated(name), Tiles()
    config = next(
        value for key, value in vars(module).items() if key.endswith("Config") and key.lower().startswith(name)
    )
    layer = make_layer(getattr(module, layer_class), config(**options), torch.randn(64, 256), torch.randn(64))
    before, x = layer.state_dict(), torch.randn(3, 256).bfloat16()
    with torch.no_grad():
        expected = module.dequantize_matmul(layer, x)
    aten = SimpleNamespace(_convert_weight_to_int4pack=tiles.pack, _weight_int4pack_mm=tiles.multiply)
    monkeypatch.setattr(module, "pack_blocks", module.pack_tiles)  # as on CUDA
    monkeypatch.setattr(torch.ops, "aten", aten)
    layer.hold(module.Int4PackLayout.pack(layer, layer.stored_tensors()), module.Int4PackLayout)
    assert layer.int4.shape == (8, 2, 32, 4)
    with torch.no_grad():
        found = module.int4pack_matmul(layer, x)
    assert ((found - expected).float().norm() / expected.float().norm()) < 0.02  # scales and offsets in bfloat16
    after = layer.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_tiles_are_traced() -> None:
    with FakeTensorMode():
        pairs = torch.empty(64, 512, dtype=torch.uint8, device="cuda")
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
        assert packed.shape == (8, 8, 32, 4)
        x, groups = torch.empty(3, 1024, dtype=torch.bfloat16, device="cuda"), torch.empty(16, 64, 2, device="cuda")
        y = torch.ops.aten._weight_int4pack_mm(x, packed, 64, groups.bfloat16())
        assert (y.shape, y.dtype) == ((3, 64), torch.bfloat16)


def test_fbgemm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call fits FBGEMM's schema, as its genai package 1.8 registers it; what stands in for it is mathematics."""
    monkeypatch.setitem(sys.modules, "fbgemm_gpu", ModuleType("fbgemm_gpu"))
    monkeypatch.setitem(sys.modules, "fbgemm_gpu.experimental", ModuleType("fbgemm_gpu.experimental"))
    monkeypatch.setitem(sys.modules, "fbgemm_gpu.experimental.gen_ai", ModuleType("gen_ai"))
    library = torch.library.Library("fbgemm", "FRAGMENT")
    library.define(
        "f8f8bf16_rowwise(Tensor XQ, Tensor WQ, Tensor x_scale, Tensor w_scale, Tensor? bias=None, "
        "bool use_fast_accum=True) -> Tensor"
    )

    def product(
        x: Tensor, w: Tensor, x_scale: Tensor, w_scale: Tensor, bias: Any = None, use_fast_accum: bool = True
    ) -> Tensor:
        assert (x_scale.dim(), w_scale.dim()) == (1, 1)
        return ((x.float() @ w.float().T) * x_scale[:, None] * w_scale).bfloat16()

    library.impl("f8f8bf16_rowwise", product, "CPU")
    module = generated("fbgemm_fp8")
    layer = make_layer(module.FbgemmFp8Linear, module.FbgemmFp8Config(), torch.randn(64, 96), torch.randn(64))
    x = torch.randn(2, 3, 96).bfloat16()
    with torch.no_grad():
        found, expected = module.rowwise_matmul(layer, x), module.rounded_matmul(layer, x)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.1)
    library._destroy()


def test_eetq(monkeypatch: pytest.MonkeyPatch) -> None:
    """EETQ's function gets inputs, tiles [K, N] and scales [N], in this order."""
    module = generated("eetq")
    layer = make_layer(module.EetqLinear, module.EetqConfig("int8"), torch.randn(32, 128), torch.randn(32))

    def product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        assert (weight.shape, weight.dtype, scale.shape) == ((128, 32), torch.int8, (32,))
        return x @ (module.untile_codes(weight).float() * scale.float()[:, None]).T

    stand_in = ModuleType("EETQ")
    stand_in.w8_a16_gemm = product  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "EETQ", stand_in)
    x = torch.randn(2, 3, 128)
    with torch.no_grad():
        torch.testing.assert_close(module.eetq_matmul(layer, x), module.dequantize_matmul(layer, x))
