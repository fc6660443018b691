"""Hidden states and attentions of a model: taken on the way, for a call that asks for them."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from unibody.outputs import keyed

HIDDEN, ATTENTIONS = "output_hidden_states", "output_attentions"


def observed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which also takes what the ecosystem's models take: `output_hidden_states`, `output_attentions`, `return_dict`.

    `hidden_states` are what goes into each layer [B, S, H], and what comes out at the end; `attentions` the weights of each layer
    [B, N, S, T], whatever `attn_implementation` computes them. None stands for what the configuration says. With
    `return_dict=False` the outputs are a plain tuple of those that there are.
    """
    own = inspect.signature(forward).parameters.keys()

    @wraps(forward)
    def call(self: Any, *arguments: Any, **inputs: Any) -> Any:
        asked = {name: inputs.pop(name, None) for name in (HIDDEN, ATTENTIONS, "return_dict") if name not in own}
        wanted = [
            name
            for name, value in asked.items()
            if name != "return_dict" and (getattr(self.config, name, False) if value is None else value)
        ]
        seen: dict[str, list[Tensor]] = {}
        if wanted:
            with ExitStack() as stack:
                seen = {name: stack.enter_context(OBSERVERS[name](self)) for name in wanted}
                outputs = forward(self, *arguments, **inputs)
        else:
            outputs = forward(self, *arguments, **inputs)
        outputs = with_observed(outputs, seen)
        return tuple(one for one in outputs if one is not None) if asked.get("return_dict") is False else outputs

    return call


@contextmanager
def hidden_states(model: Any) -> Iterator[list[Tensor]]:
    """What goes into each layer while the block runs, and what the model without a head gives."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])) for layer in layers_of(model)]
    if model.base_model is not model:
        hooks.append(model.base_model.register_forward_hook(lambda _, __, outputs: found.append(outputs[0])))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def attentions(model: Any) -> Iterator[list[Tensor]]:
    """The weights of each layer's attention while the block runs."""
    found: list[Tensor] = []
    modules: list[Any] = [part for layer in layers_of(model) for part in layer.modules() if hasattr(part, "attend")]
    for module in modules:
        module.attend = partial(by_weights, module.attend, found)
    try:
        yield found
    finally:
        for module in modules:
            del module.attend


def by_weights(
    attend: Callable[..., Tensor], found: list[Tensor], query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention by way of its weights [B, N, S, T], which are kept: attention to values that are the identity."""
    identity = torch.eye(key.shape[2], dtype=value.dtype, device=value.device).expand(*key.shape[:2], -1, -1)
    found.append(attend(query, key, identity, mask))
    return found[-1] @ value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)


OBSERVERS = {HIDDEN: hidden_states, ATTENTIONS: attentions}


def layers_of(model: Any) -> nn.ModuleList:
    """The list of a model's layers."""
    count = model.config.num_hidden_layers
    lists = (part for part in model.base_model.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
    return next(lists)


def with_observed(outputs: Any, seen: dict[str, list[Tensor]]) -> Any:
    """A named tuple of the same name, with what was seen as further fields, that can be asked by name."""
    if not hasattr(outputs, "_fields") or (not seen and torch.compiler.is_compiling()):
        return outputs  # a class of one's own returns what it likes; a program the file's own class
    if HIDDEN in seen and hasattr(outputs, "last_hidden_state"):
        seen[HIDDEN].append(outputs.last_hidden_state)
    kind: Any = type(outputs)
    found = {name.removeprefix("output_"): tuple(values) for name, values in seen.items()}
    found = {name: values for name, values in found.items() if name not in kind._fields}
    return extended(kind, tuple(found))(*outputs, **found)


@cache
def extended(kind: Any, names: tuple[str, ...]) -> Any:
    found = keyed(namedtuple(kind.__name__, (*kind._fields, *names)))
    found.__module__ = kind.__module__
    found.__reduce__ = lambda self: (remade, (kind, names, tuple(self)))
    return found


def remade(kind: Any, names: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return extended(kind, names)(*values)
