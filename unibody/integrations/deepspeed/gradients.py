"""The gradient of an engine of DeepSpeed between backward and step: its norm, and how it is forgotten.

DeepSpeed tells the norm after the step only, from functions that each of its optimizers has under another name.
"""

from __future__ import annotations

import math
from typing import Any

import torch

INFINITE = float("inf")


def gradient_norm(engine: Any) -> float:
    """The norm of the averaged gradient over all processes; infinite, if a number of it is not finite."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "scaled_global_norm"):  # ZeRO-1 and 2
        groups = [optimizer.scaled_global_norm()]
    elif hasattr(optimizer, "_get_norm_groups"):  # ZeRO-3
        groups = optimizer._get_norm_groups()
    elif hasattr(optimizer, "get_grads_for_norm"):  # ZeRO-1 in bfloat16 with gradients in float32
        from deepspeed.runtime.utils import get_global_norm_of_tensors

        groups = [get_global_norm_of_tensors(optimizer.get_grads_for_norm()[0], mpu=optimizer.mpu)]
    else:
        gradients = [parameter.grad.float() for parameter in engine.module.parameters() if parameter.grad is not None]
        groups = [torch.nn.utils.get_total_norm(gradients)]
    norms = [float(norm) for norm in groups]
    if not all(math.isfinite(norm) and norm >= 0 for norm in norms):  # below 0 is how DeepSpeed says so
        return INFINITE
    return math.hypot(*norms) / loss_scale(optimizer)


def loss_scale(optimizer: Any) -> float:
    """By what the loss was multiplied, so that no gradient of float16 is lost."""
    settings: Any = getattr(optimizer, "loss_scale_config", None)
    return float(getattr(optimizer, "loss_scale", 1.0) if settings is None else settings.cur_scale)


def forget_gradient(engine: Any) -> None:
    """Leaves a step out: by a step of DeepSpeed that takes the gradient for one that is not finite, and clears it."""
    optimizer = engine.optimizer
    infinite = torch.tensor(INFINITE)
    replaced: dict[str, Any] = {}
    if hasattr(optimizer, "scaled_global_norm"):
        replaced = {"scaled_global_norm": lambda: infinite, "check_grad_overflow": True}
    elif hasattr(optimizer, "_get_norm_groups"):
        replaced = {"_get_norm_groups": lambda: [infinite]}
    else:
        if hasattr(optimizer, "clear_hp_grads"):
            optimizer.clear_hp_grads()
        engine.zero_grad()
        return
    before = {name: vars(optimizer)[name] for name in replaced if name in vars(optimizer)}
    vars(optimizer).update(replaced)
    try:
        engine.step()
    finally:
        for name in replaced:
            del vars(optimizer)[name]
        vars(optimizer).update(before)
