"""Which linear layers of a model are packed, and putting the packed ones in their places."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn


def linears_to_convert(model: Any, skipped: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers by their full names, without those that `skipped` names and those whose weight is tied.

    An entry of `skipped` is a full name, a name or path inside of one (`lm_head`, `layers.0.mlp`), or `re:` and a pattern.
    """
    tied = {name.rpartition(".")[0] for pair in tied_weights(model).items() for name in pair}
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    prefix = name_prefix(model)
    skipped = {n for n in linears if n in tied or any(names_module(entry, n, prefix + n) for entry in skipped)}
    return {name: linear for name, linear in linears.items() if name not in skipped}


def tied_weights(model: Any) -> dict[str, str]:
    return getattr(model, "_tied_weights_keys", {}) if getattr(model.config, "tie_word_embeddings", False) else {}


def names_module(entry: str, *names: str) -> bool:
    """Whether an entry of a list of modules means the module that has these full names."""
    is_pattern = entry.startswith("re:")
    return any(re.match(entry[3:], name) if is_pattern else f".{entry}." in f".{name}." for name in names)


def name_prefix(model: Any) -> str:
    """What the names of a base model's modules begin with where it has a head; nothing, if it has one."""
    is_base = getattr(model, "base_model", model) is model
    return f"{getattr(model, 'base_model_prefix', 'model')}." if is_base else ""


def output_modules(model: Any) -> list[str]:
    """The names of the layers that come after the base model: heads, whose precision counts most."""
    base = getattr(model, "base_model", model)
    return [] if base is model else [name for name, module in model.named_children() if module is not base]


def set_module(model: Any, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def owner(model: Any, tensor_name: str) -> tuple[Any, str]:
    """The module that holds a tensor, and what is left of the name there (`weight`, `weight.absmax`)."""
    module, parts = model, tensor_name.split(".")
    while len(parts) > 1 and parts[0] in module._modules:
        module = module._modules[parts.pop(0)]
    return module, ".".join(parts)
