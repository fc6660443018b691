"""What a process that compiles again and again need not do twice: definitions whose sources are as they were, texts formatted before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .format import Style, format_files
from .graph import Graph
from .project import Project
from .unit import Family, Unit

Key = tuple[object, ...]


@dataclass
class Session:
    """Kept from one compilation to the next; a new one is needed when the templates have changed."""

    units: dict[str, tuple[Key, Unit]] = field(default_factory=dict)  # by path
    texts: dict[str, str] = field(default_factory=dict)  # before formatting -> after it
    style: Style | None = None

    def recall(self, graph: Graph, path: str, families: dict[str, Family]) -> Unit | None:
        """The unit of a definition, if neither it nor its parents nor core have changed; it becomes part of the present run."""
        key, unit = self.units.get(path, ((), None))
        if unit is None or key != _key(graph, path):
            return None
        families[path] = unit.family
        unit.graph, unit.families = graph, families
        return unit

    def keep(self, graph: Graph, units: Mapping[str, Unit]) -> None:
        """Keep these units and forget all others."""
        self.units = {path: (_key(graph, path), unit) for path, unit in units.items()}

    def format(self, project: Project, files: Mapping[str, str]) -> dict[str, str]:
        """The files, formatted; only those that are new go through the formatter."""
        style = Style(project.formatter, project.line_length)
        known = self.texts if style == self.style else {}
        fresh = format_files(style, {path: text for path, text in files.items() if text not in known}).texts
        found = {path: fresh[path] if path in fresh else known[text] for path, text in files.items()}
        self.texts, self.style = {files[path]: text for path, text in found.items()}, style
        return found


def _key(graph: Graph, path: str) -> Key:
    """The texts that a definition's family and output are made from."""
    paths = [path, *graph.lineage(path), *sorted(graph.core)]
    return (graph.project, *((p, graph.modules[p].text.text) for p in paths))
