"""Which definitions of a tree have to be converted, and from which files each inherits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..ancestry import Ancestry, circle
from ..diagnostics import CompileError
from .library import Library
from .parents import definition_of, parents


class Graph(Ancestry):
    """The wanted definitions and those that make their parents; the outputs of a `trusted` one are taken as they lie on disk."""

    def __init__(self, library: Library, wanted: Sequence[str], trusted: Collection[str] = ()) -> None:
        super().__init__()
        self.library = library
        self.inputs: dict[str, list[str]] = {}  # the files that a definition inherits from
        self._trusted = trusted
        for path in wanted:
            self._add(path, [])

    def parents(self, path: str) -> list[str]:
        found = (definition_of(self.library, file) for file in self.inputs.get(path, ()))
        return [parent for parent in dict.fromkeys(found) if parent is not None and parent != path]

    def sound(self) -> list[str]:
        """The definitions that can be converted, parents first."""
        return [path for path in self.order if path not in self.errors]

    def _add(self, path: str, trail: list[str]) -> None:
        if path in trail:
            found = circle(trail, path, "inherit from one of them by another file, or write one of them out")
            self.errors.setdefault(path, []).extend(found.diagnostics)
            for member in trail[trail.index(path) :]:
                self.errors.setdefault(member, [])
            return
        if path in self.inputs:
            return
        self.inputs[path] = []
        try:
            self.inputs[path] = list(parents(self.library, path))
        except CompileError as error:
            self.errors.setdefault(path, []).extend(error.diagnostics)
        for parent in self.parents(path):
            if parent not in self._trusted:
                self._add(parent, [*trail, path])
        self.order.append(path)
