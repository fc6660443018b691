"""The library edition of a generated class: a subclass with the library's mixins, under the same name, made once.

And the other way: objects of generated files are instances of the library's public bases, which they know nothing of.
"""

from __future__ import annotations

import copyreg
from abc import ABCMeta
from functools import cache
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


def library_edition(file_class: type, before: tuple[type, ...] = (), after: tuple[type, ...] = ()) -> Any:
    """The class of a generated file, between mixins that go before it and bases that fill it up; `file_class` leads back.

    That of a file of the library is found as `unibody.<name>`. One of a file elsewhere keeps the name of its module, and is
    pickled as what it is made of.
    """
    return _make(file_class, before, after)


@cache
def _make(file_class: type, before: tuple[type, ...], after: tuple[type, ...]) -> Any:
    module = "unibody" if file_class.__module__.startswith("unibody.generated.") else file_class.__module__
    namespace = {"__module__": module, "__doc__": file_class.__doc__, "file_class": file_class}
    return type((before + after)[0])(file_class.__name__, (*before, file_class, *after), namespace)


def file_class_of(found: type) -> type | None:
    """The class of the file that a class is the library edition of; None: it is no edition."""
    return vars(found).get("file_class")


def _reduce(found: Any) -> Any:
    """How a class is pickled: by its name, except for an edition whose name leads to the file's class."""
    file_class = file_class_of(found)
    if file_class is None or found.__module__ == "unibody":
        return found.__qualname__
    place = found.__bases__.index(file_class)
    return library_edition, (file_class, found.__bases__[:place], found.__bases__[place + 1 :])


copyreg.pickle(Recognised, _reduce)
