"""Where the lines of an output come from: recomputed from the texts that a conversion lays together, never stored.

A line of a parent's file is followed on where that file is generated itself, to the definition that wrote it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from ..diagnostics import CompileError, Diagnostic
from ..dialect import Trace
from ..text import Origin, Text, join, origins_of
from ..tools.carry import Line, carry, import_lines, label
from .convert import Conversion, output_path
from .library import PACKAGE, Library
from .pipeline import convert_tree

BANNER = 6  # lines


def trace(library: Library, path: str, definition: str) -> Trace:
    """Where the lines of the output at `path` come from, which the definition makes; refused if it does not."""
    found = convert_tree(library, [definition])
    if path not in found.outputs:
        made = ", ".join(sorted(output for output, source in found.sources.items() if source == definition))
        unknown = Diagnostic("UB026", f"no definition makes `{path}`", f"`{definition}` makes {made}", path)
        raise CompileError(*(found.diagnostics or [unknown]))

    def read(file: str) -> str:
        return library.source(file if library.exists(file) else PACKAGE + file).text

    @cache
    def lines(output: str) -> list[Line]:
        return trace_output(Conversion(library, found.sources[output]), output, found.outputs[output])

    def follow(origin: Origin, written: str, trail: list[tuple[str, str]]) -> list[Origin]:
        """Where a line was written that a file made by the definition `written` has from `origin`; fills the trail.

        A line of imports has its names from several places, each of which is followed; the trail is the first one's.
        """
        if origin.path == written:
            return [origin]
        maker = found.sources.get(origin.path)
        trail.append((maker or origin.path, _class(read(origin.path), origin.line)))
        if maker is None:
            return [origin]
        before = lines(origin.path)[origin.line - 1].origins
        return [end for n, one in enumerate(before) for end in follow(one, maker, trail if not n else [])]

    def at(number: int) -> tuple[Line, Sequence[tuple[str, str]]]:
        line = lines(path)[number - 1]
        trail = [(definition, _class(found.outputs[path], number))]
        ends = [end for n, one in enumerate(line.origins) for end in follow(one, definition, trail if not n else [])]
        return replace(line, origins=tuple(dict.fromkeys(ends))), trail if all(name for _, name in trail) else []

    return Trace(found.outputs[path], at, read, definition)


def trace_output(conversion: Conversion, path: str, text: str) -> list[Line]:
    """One entry for each line of `text`, which is the output at `path` after formatting, with its direct origins."""
    output = next(o for kind, o in conversion.results.items() if output_path(conversion.path, kind) == path)
    written = conversion.source.path
    first = Origin(written, 1)
    places = {
        alias.local.partition(".")[0]: [Origin(entry.origin.path, alias.line) if entry.origin else first]
        for candidate in conversion.finished(output)
        for entry in candidate.imports
        for alias in entry.aliases
    }
    header = conversion.source.index.header.rstrip("\n")
    rows = text.split("\n")
    start, end = _import_rows(text) or (BANNER + header.count("\n") + 1,) * 2
    body = join(output.pieces())
    return [
        *[Line("banner", (first,))] * BANNER,
        *_carried(rows[BANNER:start], Text.from_file(header, written), written),
        *import_lines(rows[start:end], places),
        *_carried(rows[end:], body, written),
    ]


def _carried(rows: list[str], before: Text, written: str) -> list[Line]:
    made = [
        Line("definition" if origin.path == written else "parent", origins_of(origin), origin.path)
        for origin in before.origins
    ]
    return carry("\n".join(rows), before.text, made) if rows else []


def _import_rows(text: str) -> tuple[int, int] | None:
    """The rows, from 0, that the imports at the top of a file take up."""
    found = []
    for node in ast.parse(text).body:
        first = node.body[0] if isinstance(node, ast.If) else node
        if not isinstance(first, (ast.Import, ast.ImportFrom)):
            break
        found.append(node)
    return (found[0].lineno - 1, found[-1].end_lineno or 0) if found else None


def _class(text: str, number: int) -> str:
    return label(text, number).partition(".")[0]
