"""Building blocks that definitions import and the compiler inlines, tree-shaken, into the files it writes."""

from __future__ import annotations

from typing import Any

# In a definition, `name = removed` in a class takes away what the parent class calls `name`.
removed: Any = object()


def role(cls: Any) -> Any:
    """Marks a class of core as a role: where one class of an output inherits from it, the compiler makes one of the two."""
    return cls
