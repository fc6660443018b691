"""The family tree of definitions of our own dialect, from what their compilation knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..diagnostics import Diagnostic
from ..discover import PREFIX, select
from ..pipeline import Result, compile_project
from ..project import Project
from ..unit import Unit
from .family_tree import Arrow, Box, Tree
from .provenance import above


def read_project(project: Project, names: list[str], classes: bool) -> tuple[Tree, Sequence[Diagnostic]]:
    """The tree of a project, and what keeps definitions from being in it."""
    result = compile_project(project)
    wanted = {result.sources[key].path for key in select(result.sources, names)} if names else None
    return read_tree(result, wanted, classes), result.diagnostics


def read_tree(result: Result, wanted: set[str] | None, classes: bool) -> Tree:
    """The tree of the wanted definitions (None: all) with those above and below them."""
    units = result.units
    shown = units.keys() if wanted is None else _related(units, wanted)
    boxes = [_box(unit, classes) for path, unit in units.items() if path in shown]
    arrows = [a for path in units if path in shown for a in (_class_arrows if classes else _arrows)(units, path)]
    keys = {box.key for box in boxes}
    return Tree(tuple(boxes), tuple(a for a in arrows if a.parent in keys))


def _related(units: dict[str, Unit], wanted: set[str]) -> set[str]:
    ancestors = {p for path in wanted & units.keys() for p in units[path].graph.lineage(path)}
    descendants = {path for path, unit in units.items() if wanted & set(unit.graph.lineage(path))}
    return wanted | ancestors | descendants


def _box(unit: Unit, classes: bool) -> Box:
    family = unit.family
    title = unit.module.stem.removeprefix(PREFIX)
    if not unit.source.output:  # a definition of another project
        title += f" ({unit.source.path.partition('/')[0]})"
    listed = ((n, n in family.own) for n, d in family.definitions.items() if d.kind == "class")
    return Box(unit.source.key, title, tuple(listed) if classes else ())


def _arrows(units: dict[str, Unit], path: str) -> Iterator[Arrow]:
    """From a definition to those that its classes inherit from, and dotted to those that it only embeds."""
    unit = units[path]
    inherited = {base.path for bases in unit.bases.values() for base in bases.values()}
    for parent in unit.graph.parents(path):
        yield Arrow(unit.source.key, units[parent].source.key, dotted=parent not in inherited)


def _class_arrows(units: dict[str, Unit], path: str) -> Iterator[Arrow]:
    """From each class to those that were merged into it, and dotted to the one that it is a derived copy of."""
    unit = units[path]
    for name, definition in unit.family.definitions.items():
        if definition.kind == "class":
            for parent, original in dict.fromkeys(above(units, path, name)):
                dotted = name not in unit.family.own
                yield Arrow(unit.source.key, units[parent].source.key, name, original, dotted)
