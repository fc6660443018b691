"""All definitions of a tree: converted by several processes, formatted at once, and again where a parent has changed.

Our own pipeline hands a parent's family to its children while it runs. Here a child reads the text of its parent's file, formatted,
so all are converted at once from what lies on disk, and those once more whose parents turn out to be another text.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from ..diagnostics import CompileError, Diagnostic, point
from ..dialect import Outcome
from ..format import Fault, format_files
from ..garbage import uncollected
from ..progress import Seen
from ..workers import in_processes
from ..write import read_file
from .convert import Conversion
from .graph import Graph
from .layout import is_generated
from .library import Library
from .parents import parents
from .settings import UNDEFINED

SHARE = 20  # definitions for which another process pays
PIECES = 3  # for each process


@dataclass(frozen=True)
class Result(Outcome):
    """The outputs, those of parents that were made on the way included, and what they were made from."""

    sources: dict[str, str] = field(default_factory=dict)  # output -> definition
    inputs: dict[str, list[str]] = field(default_factory=dict)  # definition -> files that it inherits from
    converted: tuple[str, ...] = ()  # definitions


def convert_tree(
    library: Library,
    wanted: Sequence[str],
    jobs: int = 1,
    trusted: Collection[str] = (),
    seen: Seen = lambda done, total: None,
) -> Result:
    """What the definitions convert to. Generated parents are converted first, and count where they differ from the disk.

    The outputs of a `trusted` definition are taken as they lie on disk.
    """
    library.restore()
    outputs: dict[str, str] = {}
    sources: dict[str, str] = {}
    with uncollected():
        graph = Graph(library, wanted, trusted)
        refused: dict[str, list[Diagnostic]] = {}
        paths = left = graph.sound()
        while left:
            ready = [path for path in left if all(map(library.exists, graph.inputs[path]))]
            waiting = [path for path in left if path not in ready]
            raw = _convert(library, ready, jobs, refused, seen) if ready else {}
            made = {output: path for path, texts in raw.items() for output in texts}
            formatted, faults = format_files(
                library.style, {o: text for texts in raw.values() for o, text in texts.items()}
            )
            for output, found in faults.items():
                refused.setdefault(made[output], []).extend(_undefined(library, made[output], output, found))
            formatted = {path: text for path, text in formatted.items() if made[path] not in refused}
            outputs |= formatted
            sources |= made
            changed = {path: text for path, text in formatted.items() if _replaces(library, path, text)}
            library.replace(changed)
            left = [path for path in paths if not changed.keys().isdisjoint(graph.inputs[path]) or path in waiting]
            if not changed:
                refused.update({path: [_unmade(library, path, graph.inputs[path])] for path in waiting})
                break
    errors = [d for path in graph.order for d in (*graph.errors.get(path, ()), *refused.get(path, ()))]
    return Result(
        {path: text for path, text in outputs.items() if sources[path] not in refused},
        tuple(errors),
        not errors,
        definitions=len(wanted),
        sources=sources,
        inputs={path: [file for file in graph.inputs[path] if library.inside(file)] for path in paths},
        converted=tuple(path for path in paths if path not in refused),
    )


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
    return library.overlay[path] if path in library.overlay else read_file(library.root / path)


def _convert(
    library: Library, paths: list[str], jobs: int, refused: dict[str, list[Diagnostic]], seen: Seen
) -> dict[str, dict[str, str]]:
    """The raw outputs of each definition; what is refused is noted."""
    count = min(jobs, len(paths) // SHARE)
    pieces = _split(library, paths, count)
    task: Callable[[list[str]], list[tuple[str, dict[str, str] | list[Diagnostic]]]] = lambda piece: [  # noqa: E731
        (path, _one(library, path)) for path in piece
    ]
    found: dict[str, dict[str, str]] = {}
    done = 0
    for part in map(task, ([path] for path in pieces[0])) if len(pieces) == 1 else in_processes(task, pieces, count):
        done += len(part)
        seen(done, len(paths))
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
    """The definitions in pieces of about equal work, some for each process, so that none waits long for the last.

    Those with the same parents stay together, so that few parents are read twice.
    """
    if count < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [paths]
    related = sorted(paths, key=lambda path: (sorted(parents(library, path)), path))
    weights = [len(library.source(path).text) * (2 + len(parents(library, path))) for path in related]
    count *= PIECES
    pieces: list[list[str]] = [[] for _ in range(count)]
    total, done = sum(weights), 0
    for path, weight in zip(related, weights, strict=True):
        pieces[min(count - 1, done * count // total)].append(path)
        done += weight
    return [piece for piece in pieces if piece]
