"""The whole compiler: definitions in, `{path: text}` out. Nothing here touches the disk but to read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .diagnostics import CompileError, Diagnostic
from .discover import Source, discover, select
from .flatten import flatten
from .follow import follow
from .format import format_files
from .graph import Graph
from .imports import select_imports
from .order import order
from .project import Project
from .registry import Entry, registry_entries, registry_path, render_registry
from .rename import rename
from .render import render
from .unit import Family, Unit


@dataclass(frozen=True)
class Result:
    """The outputs by path, what was refused, whether the outputs are all that the project has, and what they were made from."""

    outputs: dict[str, str]
    diagnostics: tuple[Diagnostic, ...]
    complete: bool
    sources: dict[str, Source] = field(default_factory=dict)
    units: dict[str, Unit] = field(
        default_factory=dict
    )  # by the definition's path; parents in other projects included


# What happens to each definition, its parents' families being known. A pass is a file, a function and a folder of test cases.
PASSES = (rename, flatten, follow, order, select_imports, render)
FAMILY = PASSES[:2]  # what a definition of another project, inherited from here, goes through


def compile_project(project: Project, names: list[str] | None = None) -> Result:
    """Compile the named definitions (all by default). Definitions with errors are left out and reported; the others compile."""
    sources = discover(project)
    wanted = select(sources, names) if names else list(sources)
    with _uncollected():
        graph = Graph(project)
        for source in sources.values():
            graph.add(source.file)
        by_path = {source.path: source for source in sources.values()}
        every, errors, whole = _run(graph, by_path, {sources[key].path for key in wanted} if names else None)
    units = [unit for path, unit in every.items() if path in by_path]
    outputs = {unit.source.output: unit.text for unit in units if unit.source.key in wanted}
    entries = [entry for unit in units for entry in registry_entries(unit)]
    if whole:
        outputs[registry_path(project)] = render_registry(project, _distinct(entries))
    diagnostics = tuple(_in_source(graph, error) for error in errors)
    return Result(format_files(project, outputs), diagnostics, whole and not names, sources, every)


def _run(
    graph: Graph, by_path: dict[str, Source], wanted: set[str] | None
) -> tuple[dict[str, Unit], list[Diagnostic], bool]:
    """The units that compiled by path, the errors that concern the wanted definitions (None: all), and whether all compiled.

    The child of a failed parent is left out without an error of its own.
    """
    families: dict[str, Family] = {}
    units: dict[str, Unit] = {}
    failed: dict[str, tuple[Diagnostic, ...]] = {}
    core_errors = [d for path in sorted(graph.core) for d in graph.errors.get(path, ())]
    for path in graph.order:
        source = by_path.get(path) or Source(path, graph.project.root / path, path, "")
        if path in graph.errors or core_errors or any(parent in failed for parent in graph.parents(path)):
            failed[path] = tuple(graph.errors.get(path, ()))
            continue
        unit = Unit(source, graph, families)
        try:
            for run in PASSES if path in by_path else FAMILY:
                run(unit)
        except CompileError as error:
            failed[path] = error.diagnostics
            families.pop(path, None)
            continue
        units[path] = unit
    relevant = failed.keys() if wanted is None else {p for w in wanted for p in (w, *graph.lineage(w))}
    errors = [d for path in graph.order if path in relevant for d in failed.get(path, ())]
    return units, list(dict.fromkeys([*core_errors, *errors])), not failed


def _in_source(graph: Graph, found: Diagnostic) -> Diagnostic:
    """The diagnostic with the line as its file has it: the passes work on dedented and renamed text."""
    module = graph.modules.get(found.path)
    if module is None or not found.source:
        return found
    row = module.text.text.split("\n")[found.line - 1]
    start = row.find(found.source.strip())
    if start < 0:
        indent = len(row) - len(row.lstrip())
        return replace(found, source=row, column=indent + 1, length=len(row.strip()))
    margin = len(found.source) - len(found.source.lstrip())
    return replace(found, source=row, column=max(1, found.column - margin + start))


def _distinct(entries: list[Entry]) -> list[Entry]:
    """The entries, refused when two definitions have one model type."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        other = seen.setdefault(entry.model_type, entry)
        if other is not entry:
            message = f"`{other.module}` and `{entry.module}` both have the model type `{entry.model_type}`"
            raise CompileError(
                Diagnostic("UB008", message, "give one of the configurations its own `model_type`", entry.module)
            )
    return list(seen.values())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Syntax trees are many small objects that live long: the garbage collector would walk them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
