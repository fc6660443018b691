"""Naming what stays plain, for readers that go by the configuration alone."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from unibody.core.quantization.replacement import names_module


def with_plain_layers(
    quantizer: Any, model: Any, field: str, skipped: list[str], parts: bool = True
) -> dict[str, Any]:
    """The configuration, whose `field` names all linear layers that the method means and that are plain.

    `skipped` is what the field says, or stands for where it is left open; `parts`: its entries may be parts of names, or patterns.
    Of these are left those that transformers takes for the same layers: there an entry is a name's end, or a pattern of the name, or of a module that the layer is in.
    """
    values: dict[str, Any] = quantizer.quantization_config.to_dict()
    layers = {
        n: module for n, module in model.named_modules() if isinstance(module, (nn.Linear, quantizer.linear_class))
    }

    def taken(entry: str, name: str) -> bool:
        return name.endswith(entry) or re.match(rf"({entry})(\.|$)", name) is not None

    def is_shared(entry: str) -> bool:
        try:
            return all(taken(entry, n) == names_module(entry, n, quantizer.prefix + n) for n in layers)
        except re.error:
            return False

    told = [entry for entry in skipped if is_shared(entry)] if parts else skipped
    plain = [n for n, module in layers.items() if type(module) is nn.Linear and quantizer.means(n, module)]
    plain = [n for n in plain if not (parts and any(taken(entry, n) for entry in told))]
    return {**values, field: [*told, *plain]} if plain or told != skipped else values
