"""`unibody graph`: the family tree of definitions and their classes, as Mermaid, DOT or SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..diagnostics import CompileError
from ..discover import PREFIX, select
from ..pipeline import Result, compile_project
from ..project import find_project
from ..report import FINE, UNUSABLE, WRONG, refuse
from ..unit import Unit
from .provenance import above
from .svg import draw


@dataclass(frozen=True)
class Box:
    """A definition; `rows` are the classes of its family, each with whether the file itself writes it."""

    key: str
    title: str
    rows: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class Arrow:
    """From what inherits to what it inherits from, boxes by key and rows by class; dotted: a derived copy, or only embedded."""

    child: str
    parent: str
    child_row: str = ""
    parent_row: str = ""
    dotted: bool = False


@dataclass(frozen=True)
class Tree:
    """Boxes in an order that has parents first, and the arrows between them."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def graph(names: list[str], project: Path, form: str, classes: bool) -> int:
    """Print the tree; 1 when it lacks definitions that do not compile, 2 when nothing could be read."""
    try:
        found = find_project(project)
        result = compile_project(found)
        wanted = {result.sources[key].path for key in select(result.sources, names)} if names else None
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    tree = read_tree(result, wanted, classes)
    print({"mermaid": as_mermaid, "dot": as_dot, "svg": draw}[form](tree))
    return refuse(result.diagnostics, WRONG) if result.diagnostics else FINE


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


def as_mermaid(tree: Tree) -> str:
    """A flow chart that GitHub and editors draw from the text."""
    rows = ["flowchart RL"]
    for box in tree.boxes:
        if box.rows:
            rows.append(f'  subgraph {_id(box.key)}["{box.title}"]')
            rows += [f'    {_id(box.key, name)}["{name}"]{"" if own else ":::derived"}' for name, own in box.rows]
            rows.append("  end")
        else:
            rows.append(f'  {_id(box.key)}["{box.title}"]')
    for arrow in tree.arrows:
        line = "-.->" if arrow.dotted else "-->"
        rows.append(f"  {_id(arrow.child, arrow.child_row)} {line} {_id(arrow.parent, arrow.parent_row)}")
    if any(not own for box in tree.boxes for _, own in box.rows):
        rows.append("  classDef derived stroke-dasharray: 4 3")
    return "\n".join(rows)


def as_dot(tree: Tree) -> str:
    """The language of Graphviz."""
    rows = ["digraph unibody {", "  rankdir=RL", '  node [shape=box, style=rounded, fontname="sans-serif"]']
    for box in tree.boxes:
        if box.rows:
            rows += [f"  subgraph cluster_{_id(box.key)} {{", f'    label="{box.title}"']
            styles = {True: "", False: ', style="rounded,dashed"'}
            rows += [f'    {_id(box.key, name)} [label="{name}"{styles[own]}]' for name, own in box.rows]
            rows.append("  }")
        else:
            rows.append(f'  {_id(box.key)} [label="{box.title}"]')
    for arrow in tree.arrows:
        ends = f"{_id(arrow.child, arrow.child_row)} -> {_id(arrow.parent, arrow.parent_row)}"
        rows.append(f"  {ends}{' [style=dashed]' if arrow.dotted else ''}")
    return "\n".join([*rows, "}"])


def _id(key: str, row: str = "") -> str:
    """A name that both languages take, from a definition's path and perhaps a class."""
    return re.sub(r"\W+", "_", f"{key.removesuffix('.py')}__{row}" if row else key.removesuffix(".py"))
