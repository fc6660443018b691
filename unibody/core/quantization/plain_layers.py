"""Naming what stays plain, for readers that go by the configuration alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from unibody.core.quantization.replacement import names_module


def with_plain_layers(
    quantizer: Any, model: Any, field: str, skipped: list[str], parts: bool = True
) -> dict[str, Any]:
    """The configuration, whose `field` also names the linear layers that the method means, and that are plain all the same.

    `skipped` is what the field says, or stands for where it is left open; `parts`: its entries may be parts of names.
    """
    values: dict[str, Any] = quantizer.quantization_config.to_dict()
    linears = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    linears = {name: linear for name, linear in linears.items() if quantizer.means(name, linear)}
    prefix = quantizer.prefix
    plain = [n for n in linears if not (parts and any(names_module(entry, n, prefix + n) for entry in skipped))]
    return {**values, field: [*skipped, *plain]} if plain else values
