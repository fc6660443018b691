"""What a command says: as text for people, as JSON for programs, as annotations for GitHub's pages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from .diagnostics import CompileError, Diagnostic

if TYPE_CHECKING:
    from .dialect import Outcome
    from .project import Project
    from .write import Change

Format = Literal["text", "json", "github"]
FORMATS: tuple[Format, ...] = get_args(Format)
FINE, WRONG, UNUSABLE = 0, 1, 2  # exit statuses
VERDICTS = {"created": "missing", "updated": "stale", "removed": "orphaned", "unchanged": "up to date"}
COLOURS = {"---": "1", "+++": "1", "@@ ": "36", "-": "31", "+": "32"}  # of the lines of a diff that start so


def refuse(diagnostics: Sequence[Diagnostic], status: int) -> int:
    """Print the diagnostics on standard error, and how many there are; returns `status`."""
    for diagnostic in diagnostics:
        print(diagnostic, file=sys.stderr)
    print(_count(diagnostics, "error"), file=sys.stderr)
    return status


def warn(diagnostics: Sequence[Diagnostic], status: int) -> int:
    """Print findings, which are what was asked for, on standard output, and how many there are; returns `status`."""
    for diagnostic in diagnostics:
        print(diagnostic)
    print(_count(diagnostics, "finding"))
    return status


def _count(diagnostics: Sequence[Diagnostic], what: str) -> str:
    """How many there are, and the command that explains them, or the first of different ones."""
    if not diagnostics:
        return f"0 {what}s"
    number, codes = len(diagnostics), {diagnostic.code for diagnostic in diagnostics}
    those = "the first" if len(codes) > 1 else "it" if number == 1 else "them"
    return f"{number} {what}{'s' if number > 1 else ''}; `unibody help {diagnostics[0].code}` explains {those}"


def refuse_as(diagnostics: Sequence[Diagnostic], status: int, form: Format) -> int:
    """Print the diagnostics in the form that was asked for; returns `status`."""
    return refuse(diagnostics, status) if form == "text" else publish(diagnostics, [], status, form)


def publish(diagnostics: Sequence[Diagnostic], files: Sequence[tuple[str, str]], status: int, form: Format) -> int:
    """Print what a program reads, as annotations or as one JSON document; returns `status`."""
    if form == "json":
        print(as_json(diagnostics, files, status))
    for row in as_github(diagnostics, files if status else []) if form == "github" else ():
        print(row)
    return status


def as_json(diagnostics: Sequence[Diagnostic], files: Sequence[tuple[str, str]], status: int) -> str:
    """One document: the exit status, the files that are not unchanged (path, what happened or would), the diagnostics."""
    import json

    found = {
        "status": status,
        "files": [{"path": path, "state": state} for path, state in files],
        "diagnostics": [asdict(diagnostic) for diagnostic in diagnostics],
    }
    return json.dumps(found, indent=2, ensure_ascii=False)


def as_github(diagnostics: Sequence[Diagnostic], files: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Workflow commands, one a line, that GitHub shows beside the lines of a change."""
    for found in diagnostics:
        place: dict[str, str | int] = {
            "file": found.path,
            "line": found.line,
            "col": found.column,
            "title": f"{found.code}: {found.message}",
        }
        if found.line and found.source:
            place["endColumn"] = found.column + found.length
        text = "\n".join([found.message, *(f"note: {note}" for note in found.notes), f"help: {found.remedy}"])
        yield _annotation(found.severity, place, text)
    for path, text in files:
        yield _annotation("error", {"file": path}, text)


def _annotation(severity: str, place: dict[str, str | int], text: str) -> str:
    fields = ",".join(f"{key}={_escape(str(value), ':,')}" for key, value in place.items() if value)
    return f"::{severity} {fields}::{_escape(text)}"


def _escape(text: str, also: str = "") -> str:
    """Percent signs and line ends as GitHub's runner reads them, and the characters that separate fields."""
    return re.sub(f"[%\r\n{also}]", lambda match: f"%{ord(match[0]):02X}", text)


def located(
    project: Project, diagnostics: Sequence[Diagnostic], files: Sequence[tuple[str, str]] = ()
) -> tuple[list[Diagnostic], list[tuple[str, str]]]:
    """Diagnostics and files with the paths that lead to them from where the command runs, as editors and GitHub take them."""
    root = Path(os.path.relpath(project.root))

    placed = [
        replace(d, path=(root / d.path).as_posix()) if (project.root / d.path).is_file() else d for d in diagnostics
    ]
    return placed, [((root / path).as_posix(), state) for path, state in files]


def write_report(file: Path, result: Outcome, changes: Sequence[Change]) -> None:
    """Write what a run found, and what it cost, as one JSON document."""
    import json
    import resource  # not on every platform; only a report needs it

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(own.ru_maxrss, children.ru_maxrss) / (1024 if sys.platform != "darwin" else 1024 * 1024)
    differs = []
    for change in changes:
        if change.kind in ("created", "updated"):
            rows = zip((change.current or "").split("\n"), (change.expected or "").split("\n"), strict=False)
            first = next((n for n, (a, b) in enumerate(rows, start=1) if a != b), 1)
            differs.append({"path": change.path, "line": first, "diff": "\n".join(difference(change))})
    found = {
        "definitions": result.definitions,
        "outputs": sum(change.kind != "removed" for change in changes),
        "identical": sum(change.kind == "unchanged" for change in changes),
        "differs": differs,
        "orphans": [change.path for change in changes if change.kind == "removed"],
        "errors": [{"file": d.path, "line": d.line, "message": d.message} for d in result.diagnostics],
        "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2),
        "peak_mb": round(peak, 1),
    }
    try:
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        remedy = "name a file in a folder that is there and can be written"
        raise CompileError(
            Diagnostic("UB022", f"cannot write the report: {error.strerror}", remedy, str(file))
        ) from None


def difference(change: Change) -> list[str]:
    """The rows of a unified diff from a file's text to the expected one, as `git apply` reads it."""
    sides = [(change.current, f"a/{change.path}"), (change.expected, f"b/{change.path}")]
    (current, old), (expected, new) = ((text, name if text is not None else "/dev/null") for text, name in sides)
    return _unified(current, expected, old, new)


def verdict(change: Change) -> str:
    """What `check` says of one file: a word, the path, and the diff of a stale one from current to expected."""
    rows = [f"{VERDICTS[change.kind]}: {change.path}"]
    if change.kind == "updated":
        rows += _unified(change.current, change.expected, f"{change.path} (current)", f"{change.path} (expected)")
    return "\n".join(rows)


def _unified(current: str | None, expected: str | None, old: str, new: str) -> list[str]:
    import difflib

    rows = []
    for row in difflib.unified_diff(_lines(current), _lines(expected), old, new):
        rows.append(row.removesuffix("\n"))
        if not row.endswith("\n"):
            rows.append("\\ No newline at end of file")
    return rows


def _lines(text: str | None) -> list[str]:
    """The lines with their ends, which are line feeds only."""
    return re.findall(r"[^\n]*\n|[^\n]+", text or "")


def coloured(rows: Sequence[str]) -> list[str]:
    """The rows of a diff in colours where standard output is a terminal that shows them."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return list(rows)
    codes = [next((code for start, code in COLOURS.items() if row.startswith(start)), "") for row in rows]
    return [f"\x1b[{code}m{row}\x1b[0m" if code else row for row, code in zip(rows, codes, strict=True)]
