"""All definitions of a tree: converted by several processes, formatted at once, and again where a parent has changed."""

from __future__ import annotations

import gc
import multiprocessing
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..diagnostics import CompileError, Diagnostic, point
from ..workers import in_processes
from .convert import Conversion
from .layout import is_generated
from .library import PACKAGE, Library
from .parents import definition_of, parents
from .settings import UNDEFINED, Fault, format_outputs

SHARE = 20  # definitions for which another process pays


@dataclass
class Result:
    """What some definitions convert to: texts by path, errors, and for each output the definition and its parents."""

    outputs: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # output -> definition
    parents: dict[str, list[str]] = field(default_factory=dict)  # definition -> parents
    diagnostics: list[Diagnostic] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # the definitions that were converted


def convert_tree(library: Library, wanted: Sequence[str], jobs: int = 1, trusted: Collection[str] = ()) -> Result:
    """What the definitions convert to. Generated parents are converted first, and count where they differ from the disk.

    The outputs of a `trusted` definition are taken as they lie on disk.
    """
    library.restore()
    result = Result()
    with no_collection():
        graph, result.diagnostics = _graph(library, wanted, trusted)
        result.parents = {path: [p for p in graph[path] if not p.startswith(PACKAGE)] for path in graph}
        left = list(graph)
        refused: dict[str, list[Diagnostic]] = {}
        while left:
            ready = [path for path in left if all(map(library.exists, graph[path]))]
            waiting = [path for path in left if path not in ready]
            raw = _convert(library, ready, jobs, refused) if ready else {}
            made = {output: path for path, outputs in raw.items() for output in outputs}
            texts = {output: text for outputs in raw.values() for output, text in outputs.items()}
            formatted, faults = format_outputs(texts, library.in_tree)
            for output, found in faults.items():
                refused.setdefault(made[output], []).extend(_undefined(library, made[output], output, found))
            formatted = {path: text for path, text in formatted.items() if made[path] not in refused}
            result.outputs.update(formatted)
            result.sources.update(made)
            changed = {path: text for path, text in formatted.items() if _replaces(library, path, text)}
            library.replace(changed)
            left = [path for path in graph if not changed.keys().isdisjoint(graph[path]) or path in waiting]
            if not changed:
                refused.update({path: [_unmade(library, path, graph[path])] for path in waiting})
                break
        result.outputs = {path: text for path, text in result.outputs.items() if result.sources[path] not in refused}
        result.diagnostics += [d for found in refused.values() for d in found]
        result.done = [path for path in graph if path not in refused]
    return result


def _unmade(library: Library, path: str, found: list[str]) -> Diagnostic:
    """Why a definition is refused one of whose parents no definition made after all."""
    missing = next(parent for parent in found if not library.exists(parent))
    message = f"{library.shown(missing)} is not there, and its definition did not make it"
    return Diagnostic("UB004", message, "mend that definition first", library.shown(path))


def _undefined(library: Library, path: str, output: str, faults: list[Fault]) -> Iterator[Diagnostic]:
    """Why an output is refused: names that nothing defines, one diagnostic each, placed where the definition has them."""
    source = library.source(path)
    for fault in dict.fromkeys(faults):
        match = re.search(r"`(\w+)`", fault.message)
        name = match[1] if match else ""
        note = f"in {library.shown(output)}: {fault.row}"
        if fault.code != UNDEFINED or not name:
            message = f"the output does not parse: {fault.message}"
            remedy = "this is a defect of unibody: please report it"
            yield Diagnostic("UB013", message, remedy, source.path, notes=(note,))
            continue
        place = re.search(rf"\b{re.escape(name)}\b", source.text)
        message = f"the output uses `{name}`, which nothing defines or imports"
        remedy = "define or import it in the definition, or write out the method that uses it"
        if place:
            yield point(source.rows, place.start(), len(name), "UB012", message, remedy, note)
        else:
            yield Diagnostic("UB012", message, remedy, source.path, notes=(note,))


def _replaces(library: Library, path: str, text: str) -> bool:
    """Whether an output counts instead of what is on disk: it differs, and nobody wrote that by hand."""
    current = _current(library, path)
    return current is None or (current != text and is_generated(current))


def _current(library: Library, path: str) -> str | None:
    """The text of a file that counts so far."""
    if path in library.overlay:
        return library.overlay[path]
    try:
        return (library.root / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _graph(
    library: Library, wanted: Sequence[str], trusted: Collection[str]
) -> tuple[dict[str, list[str]], list[Diagnostic]]:
    """The wanted definitions and those that make their parents, each with its parents; parents first, cycles refused."""
    graph: dict[str, list[str]] = {}
    problems: list[Diagnostic] = []
    refused: set[str] = set()
    state: dict[str, int] = {}

    def visit(path: str, chain: list[str]) -> None:
        if state.get(path) == 2:
            return
        if state.get(path) == 1:
            cycle = [*chain[chain.index(path) :], path]
            message = "the definitions inherit from each other: " + " -> ".join(map(library.shown, cycle))
            refused.update(cycle)
            problems.append(Diagnostic("UB006", message, "break the circle", library.shown(path)))
            return
        state[path] = 1
        try:
            found = list(parents(library, path))
        except CompileError as error:
            found = []
            refused.add(path)
            problems.extend(error.diagnostics)
        for parent in found:
            definition = definition_of(library, parent)
            if definition is not None and definition != path and definition not in trusted:
                visit(definition, [*chain, path])
        state[path] = 2
        graph[path] = found

    for path in wanted:
        visit(path, [])
    return {path: found for path, found in graph.items() if path not in refused}, problems


def _convert(
    library: Library, paths: list[str], jobs: int, refused: dict[str, list[Diagnostic]]
) -> dict[str, dict[str, str]]:
    """The raw outputs of each definition; what is refused is noted."""
    pieces = _split(library, paths, min(jobs, len(paths) // SHARE))
    task: Callable[[list[str]], list[tuple[str, dict[str, str] | list[Diagnostic]]]] = lambda piece: [  # noqa: E731
        (path, _one(library, path)) for path in piece
    ]
    found: dict[str, dict[str, str]] = {}
    for part in [task(pieces[0])] if len(pieces) == 1 else in_processes(task, pieces):
        for path, outcome in part:
            refused.pop(path, None)
            if isinstance(outcome, dict):
                found[path] = outcome
            else:
                refused[path] = outcome
    return {path: found[path] for path in paths if path in found}


def _one(library: Library, path: str) -> dict[str, str] | list[Diagnostic]:
    try:
        return Conversion(library, path).outputs()
    except CompileError as error:
        return list(error.diagnostics)
    except Exception as error:  # noqa: BLE001  a defect here must not keep the other definitions from their outputs
        message = f"unibody failed on this definition: {type(error).__name__}: {error}"
        return [Diagnostic("UB013", message, "this is a defect of unibody: please report it", library.shown(path))]


def _split(library: Library, paths: list[str], count: int) -> list[list[str]]:
    """The definitions in shares of about equal work; those with the same parents stay together, so that few read a parent twice."""
    if count < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [paths]
    related = sorted(paths, key=lambda path: (sorted(parents(library, path)), path))
    weights = [len(library.source(path).text) * (2 + len(parents(library, path))) for path in related]
    pieces: list[list[str]] = [[] for _ in range(count)]
    total, done = sum(weights), 0
    for path, weight in zip(related, weights, strict=True):
        pieces[min(count - 1, done * count // total)].append(path)
        done += weight
    return [piece for piece in pieces if piece]


@contextmanager
def no_collection() -> Iterator[None]:
    """Nothing here makes cycles worth collecting, and looking for them takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
