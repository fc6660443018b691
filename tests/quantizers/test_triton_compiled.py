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
CASES = (  # file, kernel, least capability, types of inputs, of other tensors and of numbers, values of the first constants
    ("gptq", "triton", 75, "", [*GROUPS, "*i32"], SIZES, (4, 1, 0)),
    ("gptq", "triton", 75, "", [*GROUPS, "*i32"], SIZES, (3, 0, 1)),
    ("awq", "triton", 75, "", [*GROUPS, "i32"], SIZES, (4, 0, 0)),
    ("hqq", "triton", 75, "", ["*i32", "*fp16", "*fp16", "i32"], SIZES, (2, 0, 0)),
    ("quanto", "triton", 75, "", ["*i32", "*fp16", "*fp16", "i32"], SIZES, (4, 0, 0)),
    ("bitsandbytes", "triton", 75, "", ["*u8", "*fp32", "*fp32"], SIZES, (64,)),
    ("compressed_tensors", "triton_float4", 75, "", ["*u8", "*fp32", "*i8"], SIZES, (16,)),
    ("eetq", "triton", 75, "", ["*fp16", "*i8", "*fp16"], SIZES, ()),
    ("quanto", "triton_int8", 75, "", ["*fp32", "*u8", "*fp32"], SIZES, ()),
    ("torchao", "triton_int8", 80, "*i8", ["*fp32", "*i8", "*fp32"], SIZES, ()),
    ("bitnet", "triton", 80, "*i8", ["*fp32", "*u8", "*fp32"], SIZES, ()),
    ("finegrained_fp8", "triton", 75, "*u8", ["*fp32", "*u8", "*fp32"], ["i32"] * 6, ()),
)
for name, kernel, least, inputs, tensors, sizes, first in CASES:
    module = import_module("quantizer_" + name)
    made = getattr(module, kernel + "_matmul_kernel")()
    targets = [(capability, "fp16", (16, 64, 64)) for capability in (75, 80, 89, 90, 100, 120) if capability >= least]
    if not inputs:
        targets += [(90, "fp32", (16, 64, 64)), (90, "bf16", (1, 16, 128))]
    for capability, dtype, blocks in targets:
        types, constants = [inputs or f"*{{dtype}}", *tensors, f"*{{dtype}}", *sizes], (*first, *blocks)
        assert len(types) + len(constants) == len(made.arg_names), name
        types = dict(zip(made.arg_names, [*types, *["constexpr"] * len(constants)]))
        given = dict(zip(made.arg_names[-len(constants):], constants))
        done = triton.compile(ASTSource(made, types, given), target=GPUTarget("cuda", capability, 32))
        assert f"sm_{{capability}}" in done.asm["ptx"], (name, capability)
    declared = [
        10 * row.capability[0] + row.capability[1]
        for layer in vars(module).values()
        for row in getattr(layer, "kernels", ())
        if row.entry == kernel + "_matmul"
    ]
    assert declared and all(capability in (0, 75, least) for capability in declared), (name, declared)
print("compiled")
"""


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    text = SCRIPT.format(folder=str(ROOT / "generated/quantizers"))
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "compiled"
