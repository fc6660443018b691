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
LAYER = """
import sys
import torch
sys.path.insert(0, {folder!r})
import quantizer_gptq as gptq

def layer(bits, version, outputs=64, inputs=96):
    config = gptq.GPTQConfig(bits=bits, group_size=32, sym=False, checkpoint_format=version)
    linear = torch.nn.Linear(inputs, outputs)
    packed = gptq.GPTQLinear(linear, config)
    packed.hold(packed.quantize(linear.weight.detach()))
    return packed
"""
INTERPRETED = """
torch.manual_seed(0)
for bits in (2, 4, 8):
    for version in ("gptq", "gptq_v2"):
        packed = layer(bits, version)
        packed.g_idx = packed.g_idx[torch.randperm(96)]
        for rows, dtype, tolerance in ((1, torch.float32, 1e-6), (5, torch.float16, 1e-3), (20, torch.float32, 1e-6)):
            x = torch.randn(2, rows, 96).to(dtype)
            with torch.no_grad():
                found, expected = gptq.triton_matmul(packed, x), gptq.dequantize_matmul(packed, x)
            worst = ((found - expected).abs().max() / expected.abs().max()).item()
            assert found.dtype == dtype and found.shape == (2, rows, 64) and worst < tolerance, (bits, version, rows, worst)
print("same")
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernel = gptq.triton_matmul_kernel()
for capability in (75, 80, 89, 90, 100, 120):
    for dtype in ("fp16", "fp32") if capability == 75 else ("fp16", "bf16", "fp32"):
        types = [f"*{dtype}", "*i32", "*i32", "*fp16", "*i32", f"*{dtype}", "i32", "i32", "i32", *["constexpr"] * 5]
        constants = dict(zip(kernel.arg_names[9:], (4, 1, 16, 64, 32)))
        source = ASTSource(kernel, dict(zip(kernel.arg_names, types)), constants)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert f"sm_{capability}" in made.asm["ptx"], capability
print("compiled")
"""


def run(script: str, **environment: str) -> str:
    text = LAYER.format(folder=str(ROOT / "generated/quantizers")) + script
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted() -> None:
    """The same as the reference, groups in any order, for both versions of the format and odd numbers of rows."""
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
