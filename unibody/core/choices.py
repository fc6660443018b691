"""Looking up what a configuration or a caller names."""

from __future__ import annotations

from typing import Any


def choose(table: dict[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise ValueError(f"{what} {name!r} is not one of {', '.join(table)}")
    return table[name]
