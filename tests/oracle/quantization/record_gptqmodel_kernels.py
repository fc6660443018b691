"""Records `gptqmodel/kernels`: what gptqmodel's layer classes for CUDA declare, and what they give to their operators.

The operators want a GPU. Here they are replaced, and note what they get.
"""

from __future__ import annotations

import inspect
import os
import sys
from types import SimpleNamespace
from typing import Any

os.environ |= {"GPTQMODEL_CPU_WORKERS": "2", "TORCHDYNAMO_DISABLE": "1"}

import torch
from gptqmodel.nn_modules.qlinear.exllamav2 import ExllamaV2Linear
from gptqmodel.nn_modules.qlinear.machete import MacheteLinear
from gptqmodel.nn_modules.qlinear.machete_awq import AwqMacheteLinear
from gptqmodel.nn_modules.qlinear.marlin import MarlinLinear
from gptqmodel.nn_modules.qlinear.marlin_awq import AwqMarlinLinear
from gptqmodel.utils import exllamav2, machete, marlin
from gptqmodel.utils.marlin_scalar_type import ScalarType, scalar_types
from torch import Tensor

from oracle.quantization import fixtures, inputs

CLASSES = MarlinLinear, AwqMarlinLinear, MacheteLinear, AwqMacheteLinear, ExllamaV2Linear
DECLARED = ("BITS", "GROUP_SIZE", "DTYPES", "DEVICES", "SYM", "IN_FEATURES_DIVISIBLE_BY", "OUT_FEATURES_DIVISIBLE_BY")
FUNCTIONS = {
    marlin: (
        *("gptq_marlin_repack", "marlin_permute_scales", "marlin_zero_points", "marlin_make_workspace_new"),
        "apply_gptq_marlin_linear",
    ),
    machete: ("machete_prepack_B", "machete_mm"),
    exllamav2: ("exllamav2_make_q_matrix", "exllamav2_gemm_half_q_half"),
}
COLUMNS, ROWS, GROUP = 128, 128, 64
SIGNATURES = {
    f"{module.__name__}:{name}": list(inspect.signature(getattr(module, name)).parameters)
    for module, names in FUNCTIONS.items()
    for name in names
}
GEMM = inspect.signature(marlin.gptq_marlin_gemm)
calls: dict[str, dict[str, Any]] = {}  # of a class that runs, by function and parameter


def replace(name: str, function: Any) -> None:
    """Makes this the function of that name in all modules of the package."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("gptqmodel") and name in vars(module):
            setattr(module, name, function)


def noting(name: str, signature: Any, function: Any) -> Any:
    """The function, which also notes what it gets."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        values = signature.bind(*arguments, **keywords).arguments
        calls[name] = {key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items()}
        return function(SimpleNamespace(**values))

    return run


def replace_operators() -> None:
    """Those that need a GPU, or ask for one; words stay in their order."""
    operators = {
        "gptq_marlin_repack": lambda given: given.b_q_weight.view(given.size_k // 16, -1).clone(),
        "awq_marlin_repack": lambda given: torch.zeros(given.size_k // 16, 2 * given.size_n, dtype=torch.int32),
        "gptq_marlin_gemm": lambda given: given.a.new_zeros(given.size_m, given.size_n),
        "marlin_validate_runtime_device": lambda given: given.min_capability,
        "machete_prepack_B": lambda given: given.weight.contiguous(),
        "machete_mm": lambda given: given.a.new_zeros(len(given.a), given.b_q.shape[1]),
        "exllamav2_make_q_matrix": lambda given: 1,
        "exllamav2_gemm_half_q_half": lambda given: None,
    }
    for name, function in operators.items():
        module = next(module for module in (marlin, machete, exllamav2) if hasattr(module, name))
        replace(name, noting(name, inspect.signature(getattr(module, name)), function))
    replace("marlin_import_exception", None)
    replace("marlin_make_workspace_new", lambda device, **options: torch.zeros(8, dtype=torch.int32))
    for name in ("marlin_runtime_available", "machete_runtime_available", "_validate_machete_device_support"):
        replace(name, lambda *arguments, **keywords: True)
    for name in ("should_use_atomic_add_reduce", "_marlin_resolve_op"):
        replace(name, lambda *arguments, **keywords: False)
    for layer_class in CLASSES:
        layer_class.cached_validate_once = classmethod(lambda layer_class: (True, None))


def declared(layer_class: Any) -> dict[str, Any]:
    """The class attributes that say what a layer can be, as JSON has them."""
    values = {name.lower(): getattr(layer_class, f"SUPPORTS_{name}") for name in DECLARED}
    return {
        name: [
            getattr(v, "value", str(v).removeprefix("torch.")) if name in ("dtypes", "devices") else v for v in found
        ]
        for name, found in values.items()
    }


def run(layer_class: Any, stored: dict[str, Tensor], symmetric: bool, x: Tensor) -> dict[str, dict[str, Any]]:
    """What the class gives to its operators for a checkpoint's tensors and inputs."""
    calls.clear()
    sizes = {"in_features": COLUMNS, "out_features": ROWS, "bias": False, "register_buffers": True}
    layer = layer_class(bits=4, group_size=GROUP, desc_act=False, sym=symmetric, **sizes)
    held = dict((*layer.named_parameters(), *layer.named_buffers()))
    for name in stored.keys() & held.keys():
        held[name].data = stored[name].clone()
    scratch = SimpleNamespace(get_slice=lambda size: torch.zeros(size // 2, dtype=torch.float16))
    layer.post_init(*[scratch] * (layer_class is ExllamaV2Linear))
    layer(x)
    return dict(calls)


def in_awq_order(words: Tensor, along_rows: bool) -> Tensor:
    """Words [R, N / 8] as AWQ has them, of those that hold codes along rows [R, N / 8] or down columns [R / 8, N]."""
    shifts = torch.arange(0, 32, 4)
    codes = (
        (words[..., None] >> shifts & 15).flatten(1)
        if along_rows
        else (words[:, None] >> shifts[:, None] & 15).flatten(0, 1)
    )
    ordered = codes.unflatten(1, (-1, 8))[..., [0, 2, 4, 6, 1, 3, 5, 7]].long()
    packed = (ordered << shifts).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def recorded() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`CLASS/DTYPE/FUNCTION/PARAMETER`, for words of codes [K / 8, N] and zero points [G, N / 8]; and the other arguments."""
    words = torch.randint(-(2**31), 2**31 - 1, (COLUMNS // 8, ROWS), dtype=torch.int32)
    zeros = torch.randint(-(2**31), 2**31 - 1, (COLUMNS // GROUP, ROWS // 8), dtype=torch.int32)
    scales = (torch.rand(COLUMNS // GROUP, ROWS) / 100).half()
    groups = torch.zeros(COLUMNS, dtype=torch.int32)  # in order, for ExllamaV2
    tensors = {"qweight": words, "zeros": zeros, "scales": scales, "x": torch.randn(3, COLUMNS)}
    rest: dict[str, Any] = {}
    for layer_class in CLASSES:
        for dtype in (torch.float16, torch.bfloat16):
            symmetric = layer_class is MarlinLinear
            stored = {"qweight": words, "qzeros": zeros, "scales": scales, "g_idx": groups}
            if layer_class.__name__.startswith("Awq"):
                stored = {"qweight": in_awq_order(words, False), "qzeros": in_awq_order(zeros, True), "scales": scales}
            for name, values in run(layer_class, stored, symmetric, tensors["x"].to(dtype)).items():
                for parameter in values.keys() - {"c", "temp_dq"}:  # what is written to
                    value = values[parameter]
                    key = f"{layer_class.__name__}/{str(dtype).removeprefix('torch.')}/{name}/{parameter}"
                    if isinstance(value, Tensor):
                        tensors[key] = value
                    else:
                        rest[key] = str(value) if isinstance(value, (ScalarType, torch.dtype)) else value
    rest["scratch"] = calls["exllamav2_make_q_matrix"]["temp_dq"].nbytes
    return tensors, {key: value for key, value in sorted(rest.items()) if not isinstance(value, torch.device)}


def passed_on() -> dict[str, str]:
    """Which of its arguments `apply_gptq_marlin_linear` gives to the operator, by the operator's names."""
    calls.clear()
    names = SIGNATURES["gptqmodel.utils.marlin:apply_gptq_marlin_linear"]
    sizes = {
        "output_size_per_partition": ROWS,
        "input_size_per_partition": COLUMNS,
        "is_k_full": True,
        "wtype": scalar_types.uint4,
    }
    tensors = {name: torch.full((2, COLUMNS), float(index)) for index, name in enumerate(names[:7])}
    marlin.apply_gptq_marlin_linear(**tensors, **sizes)
    given = calls["gptq_marlin_gemm"]
    found = {
        key: names[int(value.flatten()[0])]
        for key, value in given.items()
        if isinstance(value, Tensor) and value.numel()
    }
    return found | {"b_q_type": str(given["b_q_type"])}


def orders() -> dict[str, Tensor]:
    """Where Marlin's functions bring scales and zero points: of the numbers of these, as scales and as digits of zero points."""
    numbers = torch.arange(COLUMNS // GROUP * ROWS, dtype=torch.int32).view(-1, ROWS)
    digits = [marlin.marlin_zero_points(numbers >> shift & 15, *numbers.shape, 4) for shift in (0, 4, 8)]
    return {
        "orders/scales": marlin.marlin_permute_scales(numbers, COLUMNS, ROWS, GROUP),
        "orders/zeros": torch.stack(digits),
    }


if __name__ == "__main__":
    inputs.seed_all()
    replace_operators()
    found, others = recorded()
    facts = {"signatures": SIGNATURES, "passed_on": passed_on(), "others": others}
    facts["classes"] = {layer_class.__name__: declared(layer_class) for layer_class in CLASSES}
    facts["aligned"] = [
        [n, k] for n in range(32, 513, 32) for k in range(32, 513, 32) if marlin.marlin_is_tile_aligned(n, k)
    ]
    fixtures.save_json("gptqmodel/kernels", __file__, facts)
    fixtures.save("gptqmodel/kernels", __file__, found | orders())
