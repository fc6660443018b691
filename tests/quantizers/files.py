"""The generated files of quantizers and models, imported by their paths as a reader would who has nothing else."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


@cache
def generated(name: str) -> ModuleType:
    """`gptq` is generated/quantizers/quantizer_gptq.py, `llama` generated/models/modeling_llama.py."""
    (file,) = (ROOT / "generated").glob(f"*/*_{name}.py")
    spec = importlib.util.spec_from_file_location(f"alone_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
