"""Triton kernels compiled, without a GPU, for every architecture that they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from importlib import import_module
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, {folder!r})
SIZES = ["i32"] * 3
GROUPS = ["*i32", "*i32", "*fp16"]
CASES = (  # file, kernel, types of inputs, of other tensors and of numbers, values of the first constants
    ("gptq", "triton", "", [*GROUPS, "*i32"], SIZES, (4, 1, 0)),
    ("gptq", "triton", "", [*GROUPS, "*i32"], SIZES, (3, 0, 1)),
    ("autoround", "triton", "", [*GROUPS, "i32"], SIZES, (2, 1, 0)),
    ("awq", "triton", "", [*GROUPS, "i32"], SIZES, (4, 0, 0)),
    ("hqq", "triton", "", ["*i32", "*fp16", "*fp16", "i32"], SIZES, (4, 0, 0)),
    ("quanto", "triton", "", ["*i32", "*fp16", "*fp16", "i32"], SIZES, (4, 0, 0)),
    ("compressed_tensors", "triton_groups", "", ["*i32", "*i32", "*fp32", "i32"], SIZES, (8, 0, 0)),
    ("torchao", "triton_groups", "", ["*i32", "*i32", "*fp32", "i32"], SIZES, (5, 0, 0)),
    ("bitsandbytes", "triton", "", ["*u8", "*fp32", "*fp32"], SIZES, (64,)),
    ("compressed_tensors", "triton_float4", "", ["*u8", "*fp32", "*i8"], SIZES, (16,)),
    ("quark", "triton_float4", "", ["*u8", "*fp32", "*u8"], SIZES, (32,)),
    ("eetq", "triton", "", ["*fp16", "*i8", "*fp16"], SIZES, ()),
    ("quanto", "triton_int8", "", ["*fp32", "*u8", "*fp32"], SIZES, ()),
    ("torchao", "triton_int8", "*i8", ["*fp32", "*i8", "*fp32"], SIZES, ()),
    ("compressed_tensors", "triton_int8", "*i8", ["*fp32", "*i8", "*fp32"], SIZES, ()),
    ("bitsandbytes", "triton_int8", "*i8", ["*fp32", "*i8", "*fp32"], SIZES, ()),
    ("bitnet", "triton", "*i8", ["*fp32", "*u8", "*fp32"], SIZES, ()),
    ("finegrained_fp8", "triton", "*u8", ["*fp32", "*u8", "*fp32"], ["i32"] * 6, ()),
)
count = 0
for name, kernel, inputs, tensors, sizes, first in CASES:
    made = getattr(import_module("quantizer_" + name), kernel + "_matmul_kernel")()
    for capability in (75, 80, 89, 90, 100, 120):
        for dtype in ("fp16", "bf16", "fp32") if capability == 90 else ("fp16",):
            for blocks in ((16, 64, 64), (1, 16, 128)) if dtype == "bf16" and name != "finegrained_fp8" else ((16, 64, 64),):
                types = [inputs or f"*{{dtype}}", *tensors, f"*{{dtype}}", *sizes]
                constants = (*first, *blocks)
                assert len(types) + len(constants) == len(made.arg_names), name
                types = dict(zip(made.arg_names, [*types, *["constexpr"] * len(constants)]))
                given = dict(zip(made.arg_names[-len(constants):], constants))
                done = triton.compile(ASTSource(made, types, given), target=GPUTarget("cuda", capability, 32))
                assert f"sm_{{capability}}" in done.asm["ptx"], (name, capability)
                count += 1
print(count)
"""


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    text = SCRIPT.format(folder=str(ROOT / "generated/quantizers"))
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 18 * 8 + 17
