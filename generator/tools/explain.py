"""`unibody explain FILE:LINE`: where a generated line comes from, and through which classes."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from ..diagnostics import CompileError, Diagnostic
from ..dialect import Trace, dialect_of
from ..project import Project, find_project
from ..report import FINE, UNUSABLE, WRONG, refuse
from .carry import label

KINDS = {
    "definition": "definition",
    "parent": "parent",
    "core": "core block",
    "import": "import",
    "banner": "banner of",
    "template": "template",
}


def explain(place: str, project: Path | Project) -> int:
    """Print the origin of a generated line; 0 when it has one, 1 when it was not generated, 2 for a wrong place."""
    try:
        found = find_project(project)
        path, number = _parse(place, found)
        trace = dialect_of(found).trace(found, path)
        row, expected = _current(found, trace, path, number)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    if expected is None:
        print(f"{path}:{number}: no definition makes this line; `unibody diff {trace.name}` shows what does not agree")
        print(_quote(number, row))
        return WRONG
    print(f"{path}:{number}: {label(trace.text, expected)}".rstrip(": "))
    print(_quote(number, row))
    _print_origins(trace, expected)
    return FINE


def _print_origins(trace: Trace, number: int) -> None:
    line, trail = trace.at(number)
    for number, origin in enumerate(line.origins):
        text = trace.read(origin.path)
        inside = label(text, origin.line) if origin.path.endswith(".py") else ""
        kind = KINDS[line.kind] if number == 0 else "and"
        print(f"{kind}: {origin.path}:{origin.line}: {inside}".rstrip(": "))
        print(_quote(origin.line, text.split("\n")[origin.line - 1]))
    if len(trail) > 1:
        print("  = through: " + " <- ".join(f"{name} ({space})" for space, name in trail))


def _parse(place: str, project: Project) -> tuple[str, int]:
    """The output's path, relative to the project, and the line that `FILE:LINE` names."""
    file, _, line = place.rpartition(":")
    if not file or not line.isdecimal() or int(line) < 1:
        message = f"`{place}` is not a place in a file"
        raise CompileError(Diagnostic("UB026", message, "write FILE:LINE, with lines counted from 1", place))
    root = project.root.resolve()
    candidates = [Path(file).resolve(), (root / file).resolve()]
    inside = [c.relative_to(root).as_posix() for c in candidates if c.is_relative_to(root)]
    return next((p for p in inside if (root / p).is_file()), inside[0] if inside else file), int(line)


def _current(project: Project, trace: Trace, path: str, number: int) -> tuple[str, int | None]:
    """The line as it stands in the file, and its number in what the definition compiles to (None: it is not there).

    The two agree unless the file is stale or edited; then they are compared.
    """
    expected = trace.text.split("\n")
    file = project.root / path
    rows = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else expected
    last = len(rows) - (rows[-1] == "")
    if number > last:
        remedy = f"name a line from 1 to {last}"
        raise CompileError(Diagnostic("UB026", f"`{path}` has {last} lines", remedy, f"{path}:{number}"))
    if rows == expected:
        return rows[number - 1], number
    print(
        f"{path} differs from what its definition compiles to: it was edited, or its sources changed", file=sys.stderr
    )
    matcher = difflib.SequenceMatcher(None, rows, expected, autojunk=False)
    for one, other, size in matcher.get_matching_blocks():
        if one <= number - 1 < one + size:
            return rows[number - 1], other + number - one
    return rows[number - 1], None


def _quote(number: int, row: str) -> str:
    margin = " " * len(str(number))
    return f"{margin} |\n{number} | {row}".rstrip() + f"\n{margin} |"
