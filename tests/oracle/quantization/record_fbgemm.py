"""Records `fbgemm/rows`: codes and scales of rows, with and without a bound of the scale.

The operators are for GPUs. The Python module of the package for GPUs, fbgemm-gpu-genai, has the same in torch; it is taken from
its wheel and imported as a part of the package for CPUs, of the same version.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import fbgemm_gpu
import torch

from oracle.quantization import fixtures, inputs

PART = "fbgemm_gpu/experimental/gemm/"


def read_module(folder: Path) -> Any:
    """The module of the other package."""
    _, release = fixtures.pinned(Path(__file__).name)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"fbgemm-gpu-genai=={release}"]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(PART) and name.endswith(".py")]
        archive.extractall(folder, names)
    fbgemm_gpu.__path__.append(str(folder / "fbgemm_gpu"))
    return import_module("fbgemm_gpu.experimental.gemm.triton_gemm.fp8_gemm")


with tempfile.TemporaryDirectory() as name:
    module = read_module(Path(name))
    weight, tokens = inputs.weight(48, 64), inputs.activations(8, 64)
    weight[5] = 0
    found = {"weight": weight, "tokens": tokens}
    for key, values, bound in (("weight", weight, None), ("tokens", tokens, None), ("bounded", tokens, 2.0)):
        codes, scales = module.quantize_fp8_row(values, scale_ub=None if bound is None else torch.tensor(bound))
        found |= {f"{key}/codes": codes.view(torch.uint8), f"{key}/scales": scales}
    fixtures.save("fbgemm/rows", __file__, found, bound=2.0)
