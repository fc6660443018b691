"""Layers of the packages that the tests run live: bitsandbytes, hqq and optimum-quanto.

Each function quantizes a weight `[N, K]` with the package and returns its layer, whose outputs and state dict are the reference.
Imports wait for the first call: together the three take seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def linear_8bit(weight: Tensor, bias: Tensor | None = None, threshold: float = 0.0) -> Any:
    """`bitsandbytes.nn.Linear8bitLt`: in train mode the weight's codes only, in eval mode LLM.int8 with outlier columns."""
    import bitsandbytes as bnb

    rows, columns = weight.shape
    layer = bnb.nn.Linear8bitLt(columns, rows, bias is not None, has_fp16_weights=False, threshold=threshold)
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to("cpu")
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer


def linear_4bit(weight: Tensor, bias: Tensor | None = None, quant_type: str = "nf4", nested: bool = False) -> Any:
    """`bitsandbytes.nn.Linear4bit` that computes in the weight's type; a reference in train mode only.

    In eval mode, without gradients, it packs itself anew for a kernel in bfloat16, and a state dict taken after that is not the
    checkpoint's: `weight.absmax` is then bfloat16 `[K / blocksize, N]`.
    """
    import bitsandbytes as bnb

    rows, columns = weight.shape
    options = {"compress_statistics": nested, "quant_type": quant_type, "quant_storage": torch.uint8}
    layer = bnb.nn.Linear4bit(columns, rows, bias is not None, compute_dtype=weight.dtype, **options)
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, **options).to("cpu")
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer


def hqq_linear(weight: Tensor, bias: Tensor | None = None, **config: Any) -> Any:
    """`hqq.core.quantize.HQQLinear` that computes in the weight's type; `config`: nbits, group_size, axis, ..."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    full = _linear(weight, bias)
    return HQQLinear(full, BaseQuantizeConfig(**config), compute_dtype=weight.dtype, device="cpu", del_orig=False)


def quanto_linear(weight: Tensor, bias: Tensor | None = None, weights: str = "qint8") -> Any:
    """`optimum.quanto.QLinear`, frozen; `weights`: qint8, qint4, qint2 or qfloat8."""
    from optimum import quanto

    model = nn.Sequential(_linear(weight, bias))
    quanto.quantize(model, weights=getattr(quanto, weights))
    quanto.freeze(model)
    return model[0]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    layer.bias = None if bias is None else nn.Parameter(bias.clone())
    return layer
