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
TYPES = {{  # of what is no constant; `{{0}}` is the type of inputs
    **dict.fromkeys(("qweight", "qzeros"), "*i32"), **dict.fromkeys(("scales", "steps", "x_scales", "table", "sums"), "*fp32"),
    **dict.fromkeys(("x", "y", "bias"), "*{{0}}"), "packed": "*u8", "overall": "*fp32", "weight": "*u8",
    **dict.fromkeys(("m", "n", "k", "part", "parts", "height", "width", "blocks"), "i32"), "origin": "i32",
    "codes": "*i16", "codebooks": "*fp16",
}}
CONSTANTS = {{"group": 64, "bits": 4, "chunk": 32, "block_c": 16, "block": 32, "run": 32, "block_m": 16, "block_n": 64, "block_k": 64, "count": 2, "size": 256, "height": 1, "width": 8, "groups": 8}}
CASES = (  # file, kernel, least capability, types and constants of its own
    ("gptq", "triton", 75, {{"scales": "*fp16"}}, {{"bits": 4}}),
    ("gptq", "triton", 75, {{"scales": "*fp16"}}, {{"bits": 3}}),
    ("awq", "triton", 75, {{"scales": "*fp16"}}, {{"bits": 4}}),
    ("hqq", "triton", 75, {{"scales": "*fp16", "qzeros": "*fp16"}}, {{"bits": 2}}),
    ("quanto", "triton", 75, {{"scales": "*fp16", "qzeros": "*fp16"}}, {{"bits": 4}}),
    ("bitsandbytes", "triton", 75, {{}}, {{}}),
    ("compressed_tensors", "triton_float4", 75, {{"scales": "*i8"}}, {{}}),
    ("eetq", "triton", 75, {{"weight": "*i8", "scales": "*fp16"}}, {{}}),
    ("quanto", "triton_int8", 75, {{}}, {{}}),
    ("torchao", "triton_int8", 80, {{"x": "*i8", "weight": "*i8"}}, {{}}),
    ("aqlm", "triton", 75, {{"scales": "*fp16", "height": "constexpr", "width": "constexpr"}}, {{}}),
    ("bitnet", "triton", 80, {{"x": "*i8"}}, {{}}),
    ("finegrained_fp8", "triton", 75, {{"x": "*u8"}}, {{"block_k": 32, "is_native": False, "is_short": False}}),
    ("finegrained_fp8", "triton", 89, {{"x": "*u8"}}, {{"block_m": 64, "is_native": True, "is_short": True}}),
)
for name, kernel, least, types, constants in CASES:
    module = import_module("quantizer_" + name)
    whole = getattr(module, kernel + "_matmul_kernels", None)
    facts = {{**CONSTANTS, **constants}}
    first = ("block", "run") if hasattr(module, "BLOCK") or "float4" in kernel else ("group", "bits")
    blocks = facts["block_m"], facts["block_n"], facts["block_k"]
    kernels = vars(whole(*(facts[name] for name in first), *blocks)).values() if whole else ()
    for made in kernels or [getattr(module, kernel + "_matmul_kernel")()]:
        targets = [(capability, "fp16", {{}}) for capability in (75, 80, 89, 90, 100, 120) if capability >= least]
        if "x" not in types:
            targets += [(90, "fp32", {{}}), (90, "bf16", {{}} if whole else {{"block_m": 1}})]
        for capability, dtype, more in targets:
            known, given = {{**TYPES, **types}}, {{**facts, **more}}
            signature = {{arg: known[arg].format(dtype) if arg in known else "constexpr" for arg in made.arg_names}}
            values = {{arg: given[arg] for arg, kind in signature.items() if kind == "constexpr"}}
            done = triton.compile(ASTSource(made, signature, values), target=GPUTarget("cuda", capability, 32))
            assert f"sm_{{capability}}" in done.asm["ptx"], (name, capability)
    declared = [
        10 * row.capability[0] + row.capability[1]
        for layer in vars(module).values()
        for row in getattr(layer, "kernels", ())
        if row.entry == kernel + "_matmul"
    ]
    assert declared and all(capability in (0, 75, least) or least == 89 for capability in declared), (name, declared)
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
