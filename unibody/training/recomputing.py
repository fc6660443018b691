"""Gradient checkpointing (1604.06174): layers keep only their inputs, and are computed again in the backward pass."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def enable_gradient_checkpointing(model: nn.Module, options: dict[str, Any]) -> None:
    """By the model's own method, or for each of its layers. ValueError: it has neither."""
    own: Any = getattr(model, "gradient_checkpointing_enable", None)
    if own is not None:
        own(options or None)
    else:
        recompute_layers(model, options)


class RecomputingMixin:
    """The ecosystem's names for it."""

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return any("recomputing_options" in vars(module) for module in self.modules())  # type: ignore[attr-defined]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """From now on, while training, layers keep only their inputs; the options are those of recompute_layers."""
        recompute_layers(self, gradient_checkpointing_kwargs or {})  # type: ignore[arg-type]

    def gradient_checkpointing_disable(self) -> None:
        """From now on layers keep what they compute."""
        for module in self.modules():  # type: ignore[attr-defined]
            if vars(module).pop("recomputing_options", None) is not None:
                del module.forward

    def enable_input_require_grads(self) -> None:
        """Lets gradients reach what comes before a frozen embedding's output, which reentrant checkpointing needs."""
        embeddings = self.get_input_embeddings()  # type: ignore[attr-defined]
        self._input_gradients = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_(True))

    def disable_input_require_grads(self) -> None:
        """Takes that back."""
        self._input_gradients.remove()


def recompute_layers(model: nn.Module, options: dict[str, Any]) -> None:
    """For each layer that the model names. ValueError: it names none.

    `options` are those of torch.utils.checkpoint; with `every_n_layers` the layers between keep what they computed.
    """
    options = dict(options)
    every = options.pop("every_n_layers", 1)
    names = declared_layers(model)
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has neither gradient_checkpointing_enable nor layers in _no_split_modules: "
            "set gradient_checkpointing=False"
        )
    for layer in layers[::every]:
        layer.recomputing_options = {"use_reentrant": False, **options}  # type: ignore[assignment]
        layer.forward = MethodType(recomputed, layer)


def declared_layers(model: nn.Module) -> set[str]:
    """The classes of layers that a model, or a part of it, names as what is not to be split; those that it has."""
    named = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return named & {type(module).__name__ for module in model.modules()}


def recomputed(layer: Any, *arguments: Any, **named: Any) -> Any:
    """What the layer's class computes; while training, from its inputs once more in the backward pass."""
    forward = MethodType(type(layer).forward, layer)
    if layer.training and torch.is_grad_enabled():
        return checkpoint(forward, *arguments, **layer.recomputing_options, **named)
    return forward(*arguments, **named)
