"""Naming what stays plain, for readers that go by the configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from unibody.core.quantization.replacement import names_module


def with_plain_layers(
    values: dict[str, Any], field: str, model: Any, skipped: Iterable[str], means: Callable[[str, Any], bool]
) -> dict[str, Any]:
    """The values of a configuration whose `field` also names the linear layers that it means, and that are plain all the same.

    `skipped` is what the field says, or stands for where it is left open.
    """
    skipped = list(skipped)
    plain = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and means(name, module)
        and not any(names_module(entry, name) for entry in skipped)
    ]
    return {**values, field: [*skipped, *plain]} if plain else values
