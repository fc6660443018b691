"""The library edition of a generated class: a subclass with the library's mixins, under the same name, made once.

And the other way: objects of generated files are instances of the library's public bases, which they know nothing of.
"""

from __future__ import annotations

from abc import ABCMeta
from functools import cache
from importlib import import_module
from typing import Any


class Recognised(ABCMeta):
    """Classes of generated files are subclasses of the public bases by what they can do."""

    def __subclasscheck__(cls, subclass: type) -> bool:
        needed = cls.__dict__.get("recognised_by")
        return super().__subclasscheck__(subclass) or (
            bool(needed) and all(hasattr(subclass, n) for n in needed or ())
        )

    def __instancecheck__(cls, instance: Any) -> bool:
        return cls.__subclasscheck__(type(instance))


@cache
def library_edition(module: str, name: str, before: tuple[type, ...] = (), after: tuple[type, ...] = ()) -> Any:
    """`unibody.<name>`: the class `name` of a generated module, between mixins that go before it and bases that fill it up."""
    file_class = getattr(import_module(module), name)
    bases = (*before, file_class, *after)
    return type((before + after)[0])(name, bases, {"__module__": "unibody", "__doc__": file_class.__doc__})
