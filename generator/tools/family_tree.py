"""`unibody graph`: the family tree of definitions and their classes, as Mermaid, DOT or SVG."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..diagnostics import CompileError
from ..dialect import dialect_of
from ..project import Project, find_project
from ..report import FINE, UNUSABLE, WRONG, located, refuse
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


def graph(names: list[str], project: Path | Project, form: str, classes: bool) -> int:
    """Print the tree; 1 when it lacks definitions that do not compile, 2 when nothing could be read."""
    try:
        found = find_project(project)
        tree, diagnostics = dialect_of(found).family_tree(found, names, classes)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    print({"mermaid": as_mermaid, "dot": as_dot, "svg": draw}[form](tree))
    return refuse(located(found, diagnostics)[0], WRONG) if diagnostics else FINE


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
