"""The library edition of a generated class: a subclass with the library's mixin, under the same name, made once."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def library_edition(module: str, name: str, before: tuple[type, ...] = (), after: tuple[type, ...] = ()) -> Any:
    """`unibody.<name>`: the class `name` of a generated module, between mixins that go before it and bases that fill it up."""
    file_class = getattr(import_module(module), name)
    bases = (*before, file_class, *after)
    return type((before + after)[0])(name, bases, {"__module__": "unibody", "__doc__": file_class.__doc__})
