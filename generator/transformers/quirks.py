"""What the checked-in files need and a reader would not expect; each can be switched off on its own, by a project too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Quirks:
    """Which of the dialect's odd behaviours are kept. All of them are needed for the bytes of transformers 5.23."""

    renames_inside_words: bool = True  # `sample` with `sam` as a parent: `sam2ple`
    shares_records: bool = True  # an assignment after `super().__init__()` also replaces that of another method
    swallows_repetitions: bool = True  # a statement after `super()` that the parent's body already has is left out
    removes_by_layout: bool = (
        True  # a raising method removes only right below one empty line, undecorated, on one line
    )
    prefers_aliases: bool = True  # a parent is read under the prefix that its heirs share, not under the model's name

    @classmethod
    def none(cls) -> Quirks:
        """No odd behaviour at all."""
        return cls(**{field.name: False for field in fields(cls)})

    @classmethod
    def names(cls) -> list[str]:
        """The names of all behaviours as `[tool.unibody.quirks]` has them."""
        return [field.name.replace("_", "-") for field in fields(cls)]

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Quirks:
        """The behaviours that a project keeps; ValueError with the key where one is unknown, or is neither true nor false."""
        for key, value in table.items():
            if key not in cls.names():
                raise ValueError(f"unknown key `{key}`")
            if not isinstance(value, bool):
                raise ValueError(f"`{key}` is {value!r}")
        return cls(**{key.replace("-", "_"): value for key, value in table.items()})
