"""torch's product of int8 on CPUs without VNNI, which cut sums of two products to 16 bits: oneDNN can be held to what such have."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import torch
from unibody.core.quantization import int8

generator = torch.Generator().manual_seed(0)
int8.CUTS_SUMS = True
right = torch.randint(-128, 128, (64, 576), generator=generator, dtype=torch.int8)
right[0], right[1] = 127, -128
for rows in (1, 5):
    left = torch.randint(-127, 128, (rows, 576), generator=generator, dtype=torch.int8)
    left[0] = 127
    exact = (left.long() @ right.long().T).int()
    print(torch.equal(torch._int_mm(left, right.T), exact), torch.equal(int8.int8_product(left, right), exact))
    print(torch.equal(int8.shifted_int8_product(left, right, 128 * right.sum(1, dtype=torch.int32)), exact))
"""


@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="other processors do not cut sums")
def test_without_vnni() -> None:
    """The product of halves is exact where torch's is not."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True", "True"] * 2, "")
