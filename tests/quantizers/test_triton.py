"""Triton kernels without a GPU: run by Triton's interpreter, traced with fake CUDA tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from quantizers.files import generated
from torch._subclasses.fake_tensor import FakeTensorMode

CASES = Path(__file__).parent / "triton_cases.py"


@pytest.mark.parametrize(("kind", "count"), [("groups", 54), ("tables", 11), ("eights", 16), ("float8", 13)])
def test_interpreted(kind: str, count: int) -> None:
    """The same as the reference: all formats, GPTQ's groups in any order, odd numbers of rows."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(CASES), kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == count


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="cuda")


def words(*shape: int) -> torch.Tensor:
    return empty(*shape, dtype=torch.int32)


OPERATORS = (  # file, name, what follows the inputs
    ("gptq", "triton", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("autoround", "triton", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("awq", "triton", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("hqq", "triton", lambda: (words(12, 64), empty(3, 64), empty(3, 64), None, 32, 4)),
    ("quanto", "triton", lambda: (words(12, 64), empty(3, 64), empty(3, 64), None, 32, 4)),
    ("compressed_tensors", "triton_groups", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("quark", "triton_groups", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("torchao", "triton_groups", lambda: (words(12, 64), words(3, 8), empty(3, 64), None, 32, 4)),
    ("bitsandbytes", "triton", lambda: (codes(64 * 48), empty(16), empty(96), None, 64, 64)),
    ("compressed_tensors", "triton_float4", lambda: (codes(64, 48), None, codes(64, 3), None, 64, 32)),
    ("quark", "triton_float4", lambda: (codes(64, 48), None, codes(64, 3), None, 64, 32)),
    *(
        (name, kernel, lambda: (None, codes(64, 96), empty(64), None, torch.bfloat16))
        for name, kernel in (
            ("torchao", "triton_int8"),
            ("compressed_tensors", "triton_int8"),
            ("quark", "triton_int8"),
        )
    ),
    (
        "aqlm",
        "triton",
        lambda: (codes(64, 12, 2).view(torch.int8), empty(2, 256, 1, 8), empty(64, 1, 1, 1), None),
    ),
    ("eetq", "triton", lambda: (codes(64, 96), empty(64), None, torch.bfloat16)),
    ("quanto", "triton_int8", lambda: (codes(64, 96), empty(64), None, torch.bfloat16)),
    ("bitsandbytes", "triton_int8", lambda: (empty(5), codes(64, 96), empty(64), None, torch.bfloat16)),
    ("bitnet", "triton", lambda: (empty(5), codes(16, 96), empty(64), None, torch.bfloat16)),
    ("finegrained_fp8", "triton", lambda: (empty(5, 3), codes(64, 96), empty(2, 3), None, 32, 32, torch.bfloat16)),
    ("fbgemm_fp8", "triton", lambda: (empty(5, 1), codes(64, 96), empty(64, 1), None, 1, 96, torch.bfloat16)),
    ("compressed_tensors", "triton", lambda: (empty(5, 3), codes(64, 96), empty(2, 3), None, 32, 32, torch.bfloat16)),
    ("quark", "triton", lambda: (empty(5, 1), codes(64, 96), empty(64, 1), None, 1, 96, torch.bfloat16)),
)


def codes(*shape: int) -> torch.Tensor:
    return empty(*shape, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "kernel", "others"), OPERATORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_traced(name: str, kernel: str, others: Any) -> None:
    """The operator's shape and type are known without running it."""
    operator = getattr(generated(name), f"{kernel}_matmul_operator")
    with FakeTensorMode():
        y = operator(empty(5, 96, dtype=torch.bfloat16), *others())
        assert (y.shape, y.dtype, y.device.type) == ((5, 64), torch.bfloat16, "cuda")


def test_copies_of_a_file_keep_their_own_operators() -> None:
    """The library's module and a copy beside it register different names: torch would take an operator from the first."""
    copy, library = generated("quark"), import_module("unibody.generated.quantizers.quantizer_quark")
    names = {module.triton_matmul_operator._qualname for module in (copy, library)}
    assert names == {
        "alone_quantizer_quark::triton_matmul",
        "unibody_generated_quantizers_quantizer_quark::triton_matmul",
    }
