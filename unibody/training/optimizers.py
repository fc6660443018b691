"""Optimizers by name, over torch.optim; weight decay is for matrices only."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from unibody.training.arguments import TrainingArguments
from unibody.training.choices import OptimizerNames

NORM = re.compile(r"norm", re.IGNORECASE)


def get_decay_parameter_names(model: nn.Module) -> list[str]:
    """The parameters that weight decay is for: all but biases and those of normalisation layers."""
    norms = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if NORM.search(type(module).__name__)
        for name, _ in module.named_parameters(recurse=False)
    }
    return [name for name, _ in model.named_parameters() if name not in norms and not name.endswith("bias")]


def optimizer_class(args: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class that `args.optim` names, and its options without the parameters; `optim_args` go over them."""
    adam = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    table: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        OptimizerNames.ADAMW_TORCH: (torch.optim.AdamW, adam),
        OptimizerNames.ADAMW_TORCH_FUSED: (torch.optim.AdamW, {**adam, "fused": True}),
        OptimizerNames.ADAFACTOR: (torch.optim.Adafactor, {}),
        OptimizerNames.SGD: (torch.optim.SGD, {}),
        OptimizerNames.ADAGRAD: (torch.optim.Adagrad, {}),
        OptimizerNames.RMSPROP: (torch.optim.RMSprop, {}),
    }
    found, options = table[OptimizerNames(args.optim)]
    return found, {"lr": args.learning_rate, **options, **args.optim_args}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that are trained, in two groups: with and without weight decay. ValueError: all are frozen."""
    decayed = set(get_decay_parameter_names(model))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(
            f"no parameter of {type(model).__name__} is trained: set requires_grad of some, or add adapters"
        )
    return [
        {"params": [p for name, p in trained if name in decayed], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if name not in decayed], "weight_decay": 0.0},
    ]
