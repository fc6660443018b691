"""Triton kernels without a GPU: run by Triton's interpreter, compiled for the architectures, traced with fake CUDA tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quantizers.files import generated
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).parents[2]
LAYERS = """
import sys
import torch
sys.path.insert(0, {folder!r})
import quantizer_autoround as autoround, quantizer_awq as awq, quantizer_bitsandbytes as bitsandbytes, quantizer_gptq as gptq
import quantizer_compressed_tensors as compressed, quantizer_fbgemm_fp8 as fbgemm, quantizer_finegrained_fp8 as fp8
import quantizer_quark as quark

def make(layer_class, config):
    linear = torch.nn.Linear(96, 64)
    packed = layer_class(linear, config)
    packed.hold(packed.quantize(linear.weight.detach()))
    return packed

HF = {{compressed: "CompressedTensorsHfQuantizer", quark: "QuarkHfQuantizer"}}

def groupwise():
    for bits in (2, 4, 8):
        for symmetric in (True, False):
            weights = dict(num_bits=bits, group_size=32, symmetric=symmetric)
            yield compressed, compressed.CompressedTensorsConfig(dict(group=dict(targets=["Linear"], weights=weights)))
    for kind in ("int4", "uint4"):
        spec = dict(dtype=kind, qscheme="per_group", group_size=32, symmetric=kind == "int4")
        yield quark, quark.QuarkConfig(global_quant_config=dict(weight=spec))

def layers():
    for bits in (2, 4, 8):
        for version in ("gptq", "gptq_v2"):
            config = gptq.GPTQConfig(bits=bits, group_size=32, sym=False, checkpoint_format=version)
            packed = make(gptq.GPTQLinear, config)
            packed.g_idx = packed.g_idx[torch.randperm(96)]
            yield gptq, packed
            form = "auto_round:gptq" if version == "gptq" else "auto_round:gptqmodel"
            config = autoround.AutoRoundConfig(bits=bits, group_size=32, sym=False, packing_format=form)
            yield autoround, make(autoround.AutoRoundLinear, config)
    yield awq, make(awq.AWQLinear, awq.AwqConfig(group_size=32))
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            config = bitsandbytes.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double, bnb_4bit_quant_storage="float16"
            )
            yield bitsandbytes, make(bitsandbytes.Linear4bit, config)
    for size, form in (((32, 32), "float"), ((64, 96), "ue8m0"), ((1, 32), "ue8m0"), (None, "float")):
        for scheme in ("dynamic", "static"):
            config = fp8.FineGrainedFP8Config(weight_block_size=size, scale_fmt=form, activation_scheme=scheme)
            packed = make(fp8.FP8Linear, config)
            if scheme == "static":
                packed.hold(dict(packed.stored_tensors(), activation_scale=torch.tensor(0.005)))
            yield fp8, packed
    yield fbgemm, make(fbgemm.FbgemmFp8Linear, fbgemm.FbgemmFp8Config(activation_scale_ub=2.0))
    eight = dict(num_bits=8, type="float")
    groups = dict(eight, strategy="group", group_size=32)
    for module, config in groupwise():
        make_linear = getattr(module, HF[module])(config, pre_quantized=False).make_linear
        packed = make(lambda linear, _: make_linear("layer", linear), config)
        before = packed.state_dict()
        packed.hold(module.ColumnsLayout.pack(packed, packed.stored_tensors()), module.ColumnsLayout)
        assert all(torch.equal(before[name], tensor) for name, tensor in packed.state_dict().items())
        yield module, packed
    for weights, inputs in (
        (dict(eight, strategy="tensor"), dict(eight, strategy="tensor")),
        (dict(eight, strategy="channel"), dict(eight, strategy="token", dynamic=True)),
        (dict(eight, strategy="block", block_structure=[32, 32]), dict(groups, dynamic=True)),
        (dict(groups, scale_dtype="torch.uint8"), dict(groups, scale_dtype="torch.uint8", dynamic=True)),
    ):
        group = dict(targets=["Linear"], weights=weights, input_activations=inputs)
        config = compressed.CompressedTensorsConfig(config_groups=dict(group=group))
        quantizer = compressed.CompressedTensorsHfQuantizer(config, pre_quantized=False)
        packed = make(lambda linear, _: quantizer.make_linear("layer", linear), config)
        if "input_scale" in packed.names:
            packed.hold(dict(packed.stored_tensors(), input_scale=torch.tensor([0.005])))
        yield compressed, packed
"""
INTERPRETED = """
torch.manual_seed(0)
for module, packed in layers():
    for rows, dtype, tolerance in ((1, torch.float32, 1e-6), (5, torch.float16, 1e-3), (20, torch.float32, 1e-6)):
        x = torch.randn(2, rows, 96).to(dtype)
        with torch.no_grad():
            reference = module.dequantize_matmul if hasattr(packed, "bits") or module is bitsandbytes else module.rounded_matmul
            kernel = getattr(module, "triton_groups_matmul" if packed.layout else "triton_matmul")
            found, expected = kernel(packed, x), reference(packed, x)
        worst = ((found - expected).abs().max() / expected.abs().max()).item()
        assert found.dtype == dtype and found.shape == (2, rows, 64) and worst < tolerance, (packed, rows, worst)
print("same")
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

groupwise = ["*i32", "*i32", "*fp16"], ["i32"] * 3, (4, 1, 16, 64, 32)
CASES = (
    (gptq, [*groupwise[0], "*i32"], *groupwise[1:]),
    (autoround, [*groupwise[0], "i32"], *groupwise[1:]),
    (awq, [*groupwise[0], "i32"], *groupwise[1:]),
    (bitsandbytes, ["*u8", "*fp32", "*fp32"], ["i32"] * 3, (64, 16, 64, 32)),
    (fp8, ["*fp32", "*u8", "*fp32"], ["i32"] * 6, (16, 64, 32)),
    (compressed, ["*i32", "*i32", "*fp32", "i32"], *groupwise[1:]),
)
for module, tensors, sizes, constants in CASES:
    kernel = module.triton_groups_matmul_kernel() if module is compressed else module.triton_matmul_kernel()
    for capability in (75, 80, 89, 90, 100, 120):
        for dtype in ("fp16", "bf16", "fp32") if capability == 90 else ("fp16",):
            inputs = "*u8" if module is fp8 else f"*{dtype}"
            types = [inputs, *tensors, f"*{dtype}", *sizes, *["constexpr"] * len(constants)]
            assert len(types) == len(kernel.arg_names)
            given = dict(zip(kernel.arg_names[-len(constants):], constants))
            source = ASTSource(kernel, dict(zip(kernel.arg_names, types)), given)
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert f"sm_{capability}" in made.asm["ptx"], capability
print("compiled")
"""


def run(script: str, **environment: str) -> str:
    text = LAYERS.format(folder=str(ROOT / "generated/quantizers")) + script
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted() -> None:
    """The same as the reference: all formats, GPTQ's groups in any order, odd numbers of rows."""
    pytest.importorskip("triton")
    assert run(INTERPRETED, TRITON_INTERPRET="1") == "same"


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    assert run(COMPILED, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


def test_traced() -> None:
    """The operator's shape and type are known without running it."""
    gptq = generated("gptq")
    packed = gptq.GPTQLinear(nn.Linear(96, 64), gptq.GPTQConfig(bits=4, group_size=32))
    with FakeTensorMode():
        held = [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in packed.empty_tensors().values()]
        x = torch.empty(5, 96, dtype=torch.bfloat16, device="cuda")
        y: Tensor = gptq.triton_matmul_operator(x, *held, 4, 1)
        assert (y.shape, y.dtype, y.device.type) == ((5, 64), torch.bfloat16, "cuda")
        for name in ("autoround", "awq"):
            file = generated(name)
            z: Tensor = file.triton_matmul_operator(x, *held[:3], 32, 4, 1)
            assert (z.shape, z.dtype, z.device.type) == ((5, 64), torch.bfloat16, "cuda")
        packed_bytes = torch.empty(64 * 48, dtype=torch.uint8, device="cuda")
        table, scales = torch.empty(16, device="cuda"), torch.empty(96, device="cuda")
        w: Tensor = generated("bitsandbytes").triton_matmul_operator(x, packed_bytes, table, scales, 64, 64)
        assert (w.shape, w.dtype, w.device.type) == ((5, 64), torch.bfloat16, "cuda")
        codes, scales = torch.empty(5, 96, dtype=torch.uint8, device="cuda"), torch.empty(5, 3, device="cuda")
        weight, blocks = torch.empty(64, 96, dtype=torch.uint8, device="cuda"), torch.empty(2, 3, device="cuda")
        file = generated("finegrained_fp8")
        v: Tensor = file.triton_matmul_operator(codes, scales, weight, blocks, 32, 32, torch.bfloat16)
        assert (v.shape, v.dtype, v.device.type) == ((5, 64), torch.bfloat16, "cuda")
