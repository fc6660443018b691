"""The whole compiler: definitions in, `{path: text}` out. Nothing here touches the disk but to read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .diagnostics import CompileError, Diagnostic
from .dialect import Outcome
from .discover import Source, discover, select
from .flatten import flatten
from .follow import follow
from .garbage import uncollected
from .graph import Graph
from .imports import select_imports
from .kernels import expand_core, expand_kernels
from .order import order
from .progress import Seen
from .project import Project
from .registry import Entry, registry_entries, registry_path, render_registry
from .rename import rename
from .render import render
from .roles import fill_roles, read_roles
from .session import Session
from .stub import render_stub, stub_path
from .unit import Family, Unit
from .workers import in_processes, shares


@dataclass(frozen=True)
class Result(Outcome):
    """The outputs, and what they were made from."""

    sources: dict[str, Source] = field(default_factory=dict)
    modules: tuple[str, ...] = ()  # every file that was read, as displayed
    units: dict[str, Unit] = field(
        default_factory=dict
    )  # by the definition's path, foreign parents included; none of a run in processes


# What happens to each definition, its parents' families being known. A pass is a file, a function and a folder of test cases.
PASSES = (rename, flatten, expand_kernels, follow, fill_roles, order, select_imports, render)
FAMILY = PASSES[:2]  # what a definition of another project, inherited from here, goes through


def compile_project(
    project: Project,
    names: list[str] | None = None,
    jobs: int = 1,
    seen: Seen | None = None,
    session: Session | None = None,
) -> Result:
    """Compile the named definitions (all by default). Definitions with errors are left out and reported; the others compile.

    `jobs` is the most processes to use; `seen` is told how many definitions are done, and of how many. A `session` keeps
    what the next compilation of this process need not do again.
    """
    session = session or Session()
    sources = discover(project)
    wanted = select(sources, names) if names else list(sources)
    with uncollected():
        graph = Graph(project)
        for source in sources.values():
            graph.add(source.file)
        read_roles(graph)
        expand_core(graph)
        by_path = {source.path: source for source in sources.values()}
        units, made, failed = _run_all(graph, by_path, jobs, seen or (lambda done, total: None), session)
    outputs = {sources[key].output: made[sources[key].path].text for key in wanted if sources[key].path in made}
    if not failed:
        entries = _distinct([entry for path in graph.order if path in made for entry in made[path].entries])
        outputs[registry_path(project)] = render_registry(project, entries)
        if project.stub:
            listed = {by_path[path].output: found.entries for path, found in made.items()}
            outputs[stub_path(project)] = render_stub(project, listed)
    errors = _errors(graph, failed, {sources[key].path for key in wanted} if names else None)
    diagnostics = tuple(_in_source(graph, error) for error in errors)
    return Result(
        session.format(project, outputs),
        diagnostics,
        not failed and not names,
        definitions=len(wanted),
        sources=sources,
        modules=tuple(graph.modules),
        units=units,
    )


class _Made(NamedTuple):
    """What a definition came to: its output, not yet formatted, and its lines of the registry."""

    text: str
    entries: list[Entry]


_Failed = dict[
    str, tuple[Diagnostic, ...]
]  # by path; empty for the child of a failed parent, which has no error of its own


def _run_all(
    graph: Graph, by_path: dict[str, Source], jobs: int, seen: Seen, session: Session
) -> tuple[dict[str, Unit], dict[str, _Made], _Failed]:
    """The units (of a run in one process), what they came to, and the definitions that failed; by path."""
    pieces = shares([path for path in graph.order if path in by_path], jobs)
    if len(pieces) == 1:
        units, failed = _run(graph, by_path, graph.order, seen, session)
        session.keep(graph, units)
        return units, _made(units, by_path), failed

    def run(piece: list[str]) -> tuple[dict[str, _Made], _Failed]:
        needed = {path for asked in piece for path in (asked, *graph.lineage(asked))}
        units, failed = _run(graph, by_path, [path for path in graph.order if path in needed], session=session)
        return _made(units, by_path), failed

    made: dict[str, _Made] = {}
    failed = {}
    for texts, errors in in_processes(run, pieces):
        made |= texts
        failed |= errors
        seen(len(made) + len(failed), len(graph.order))
    return {}, made, failed


def _run(
    graph: Graph,
    by_path: dict[str, Source],
    paths: list[str],
    seen: Seen = lambda done, total: None,
    session: Session | None = None,
) -> tuple[dict[str, Unit], _Failed]:
    """The units of the given paths (parents first) that compiled, and those that failed."""
    families: dict[str, Family] = {}
    units: dict[str, Unit] = {}
    failed: _Failed = {}
    broken = any(path in graph.errors for path in graph.core)
    for number, path in enumerate(paths, start=1):
        source = by_path.get(path) or Source(path, graph.project.root / path, path, "")
        if path in graph.errors or broken or any(parent in failed for parent in graph.parents(path)):
            failed[path] = tuple(graph.errors.get(path, ()))
            continue
        known = session.recall(graph, path, families) if session else None
        unit = known or Unit(source, graph, families)
        try:
            for run in () if known else PASSES if path in by_path else FAMILY:
                run(unit)
        except CompileError as error:
            failed[path] = error.diagnostics
            families.pop(path, None)
            continue
        units[path] = unit
        seen(number, len(paths))
    return units, failed


def _made(units: dict[str, Unit], by_path: dict[str, Source]) -> dict[str, _Made]:
    return {path: _Made(unit.text, registry_entries(unit)) for path, unit in units.items() if path in by_path}


def _errors(graph: Graph, failed: _Failed, wanted: set[str] | None) -> list[Diagnostic]:
    """The errors that concern the wanted definitions (None: all), those of core first, then parents before children."""
    relevant = failed.keys() if wanted is None else {p for w in wanted for p in (w, *graph.lineage(w))}
    errors = [d for path in sorted(graph.core) for d in graph.errors.get(path, ())]
    errors += [d for path in graph.order if path in relevant for d in failed.get(path, ())]
    return list(dict.fromkeys(errors))


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
    """The entries, refused when two definitions have one model type or quantization method."""
    seen: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        other = seen.setdefault((entry.attribute, entry.value), entry)
        if other is not entry:
            what = entry.attribute.replace("_", " ").replace("quant ", "quantization ")
            message = f"`{other.module}` and `{entry.module}` both have the {what} `{entry.value}`"
            remedy = f"give one of the configurations its own `{entry.attribute}`"
            raise CompileError(Diagnostic("UB008", message, remedy, entry.module))
    return list(seen.values())
