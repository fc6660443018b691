"""Which definitions inherit from which: parents before children, circles refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .diagnostics import CompileError, Diagnostic


@dataclass
class Ancestry(ABC):
    """Definitions by path, in an order that has parents first, and what is wrong with those that cannot be used."""

    order: list[str] = field(default_factory=list, init=False)
    errors: dict[str, list[Diagnostic]] = field(default_factory=dict, init=False)

    @abstractmethod
    def parents(self, path: str) -> list[str]:
        """The definitions that a definition inherits from, in the order of its imports."""

    def lineage(self, path: str) -> Iterator[str]:
        """A definition's parents, their parents, and so on, each once."""
        seen: dict[str, None] = {}
        pending = self.parents(path)
        while pending:
            parent = pending.pop(0)
            if parent not in seen:
                seen[parent] = None
                pending += self.parents(parent)
        yield from seen


def circle(trail: Sequence[str], path: str, remedy: str) -> CompileError:
    """The refusal of a definition that is an ancestor of its own; `trail` led to it."""
    cycle = " -> ".join([*trail[trail.index(path) :], path])
    return CompileError(Diagnostic("UB006", f"definitions import each other: {cycle}", remedy, path))
