"""Named tuples that can also be asked by name, as the ecosystem's outputs can."""

from __future__ import annotations

from typing import Any


class Keys:
    """The methods: the keys are the fields whose values are not None. Iteration, indices and length stay a tuple's."""

    _fields: tuple[str, ...]

    def keys(self) -> tuple[str, ...]:
        return tuple(name for name in self._fields if getattr(self, name) is not None)

    def values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        return tuple(zip(self.keys(), self.values(), strict=True))

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in self.keys() else default

    def to_tuple(self) -> tuple[Any, ...]:
        return self.values()

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, str):
            return tuple.__getitem__(self, place)  # type: ignore[call-overload]
        if place not in self.keys():
            raise KeyError(f"{place!r} is not among {', '.join(self.keys())}")
        return getattr(self, place)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


def keyed(kind: Any) -> Any:
    """A class of named tuples, which gets these methods."""
    for name, method in vars(Keys).items():
        if callable(method):
            setattr(kind, name, method)
    return kind
