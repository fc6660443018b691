"""What a command says: as text for people, as JSON for programs, as annotations for GitHub's pages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, get_args

from .diagnostics import Diagnostic

if TYPE_CHECKING:
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
    count = len(diagnostics)
    print(f"{count} error{'s' if count != 1 else ''}", file=sys.stderr)
    return status


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
        yield _annotation(place, text)
    for path, text in files:
        yield _annotation({"file": path}, text)


def _annotation(place: dict[str, str | int], text: str) -> str:
    fields = ",".join(f"{key}={_escape(str(value), ':,')}" for key, value in place.items() if value)
    return f"::error {fields}::{_escape(text)}"


def _escape(text: str, also: str = "") -> str:
    """Percent signs and line ends as GitHub's runner reads them, and the characters that separate fields."""
    return re.sub(f"[%\r\n{also}]", lambda match: f"%{ord(match[0]):02X}", text)


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
