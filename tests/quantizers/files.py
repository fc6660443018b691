"""The generated files of quantizers and models, imported by their paths as a reader would who has nothing else."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

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


def make_layer(layer_class: Any, config: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """A packed layer of a weight [N, K], quantized."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    layer = layer_class(linear, config)
    layer.hold(layer.quantize(weight))
    return layer


def as_bytes(tensor: Tensor) -> Tensor:
    """Bytes stored as floating-point numbers may be NaN, which equals nothing."""
    return tensor.reshape(-1).view(torch.uint8)
