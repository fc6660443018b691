"""The family tree of a tree of models: definitions, the files written by hand that they inherit from, and their classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..diagnostics import CompileError, Diagnostic
from ..tools.family_tree import Arrow, Box, Tree
from .convert import Conversion
from .graph import Graph
from .library import PACKAGE, Library
from .parents import definition_of


def read_tree(
    library: Library, every: list[str], wanted: set[str] | None, classes: bool
) -> tuple[Tree, Sequence[Diagnostic]]:
    """The tree of the wanted definitions (None: all) with those above and below them, and what is wrong with others."""
    graph = Graph(library, every)
    wanted = set(graph.order) if wanted is None else wanted
    above = {*wanted, *(ancestor for path in wanted for ancestor in graph.lineage(path))}
    shown = [path for path in graph.sound() if path in above or not wanted.isdisjoint(graph.lineage(path))]
    problems = [d for path in graph.order for d in graph.errors.get(path, ())]
    boxes: dict[str, dict[str, bool]] = {}
    for path in shown:  # parents first, files written by hand before what inherits from them
        by_hand = [file for file in graph.inputs[path] if definition_of(library, file) is None]
        boxes |= {file: {} for file in by_hand if path in above and file not in boxes}
        boxes[path] = {}
    arrows: dict[Arrow, None] = {}
    for path in shown:
        try:
            found = _class_arrows(library, path, boxes) if classes else _arrows(library, graph, path)
            arrows |= {arrow: None for arrow in found if arrow.parent in boxes}
        except CompileError as error:
            problems += error.diagnostics
    listed = tuple(Box(path, _title(path), tuple(rows.items())) for path, rows in boxes.items())
    return Tree(listed, tuple(arrows)), problems


def _title(path: str) -> str:
    """`gemma2` for a definition, `modeling_llama` for a file that is written by hand."""
    name = path.rpartition("/")[2]
    if name.startswith("modular_"):
        return name.removeprefix("modular_").removesuffix(".py")
    place = " (installed)" if path.startswith(PACKAGE) else ""
    return f"{name.removesuffix('.py')}{place}"


def _arrows(library: Library, graph: Graph, path: str) -> Iterator[Arrow]:
    """From a definition to what its classes inherit from, and dotted to what it only takes functions from."""
    conversion = Conversion(library, path)
    inherited = {conversion.origin[base].path for _, base in conversion.inheriting()}
    solid = {definition_of(library, file) or file for file in inherited}
    for file in graph.inputs[path]:
        parent = definition_of(library, file) or file
        if parent != path:
            yield Arrow(path, parent, dotted=parent not in solid)


def _class_arrows(library: Library, path: str, boxes: dict[str, dict[str, bool]]) -> Iterator[Arrow]:
    """From each class of the outputs to the one that it inherits from, and dotted to the one that it is a copy of."""
    conversion = Conversion(library, path)
    own = dict(conversion.inheriting())
    for output in conversion.results.values():
        for name in output.bodies:
            written = conversion.child.own.get(name)
            copied = (
                next((s.own[name] for s in conversion.scopes.values() if name in s.own), None) if not written else None
            )
            definition = written or copied
            if definition is None or definition.kind != "class":
                continue
            boxes[path][name] = written is not None
            base = own.get(name)
            source = (
                conversion.origin[base].path
                if base
                else next(
                    (p for p, s in conversion.scopes.items() if copied is not None and s.view is copied.view), None
                )
            )
            if source is not None:
                parent = definition_of(library, source) or source
                original = base or (copied.statement.name if copied else name)
                if parent in boxes:
                    boxes[parent].setdefault(original, True)
                yield Arrow(path, parent, name, original, dotted=base is None)
