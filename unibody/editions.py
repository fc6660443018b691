"""The library edition of a generated class: a subclass with the library's mixins, under the same name, made once."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def library_edition(module: str, name: str, mixin: type) -> Any:
    """`unibody.<name>`: the class `name` of a generated module, and after it in the order of bases the mixin."""
    file_class = getattr(import_module(module), name)
    return type(name, (file_class, mixin), {"__module__": "unibody", "__doc__": file_class.__doc__})
