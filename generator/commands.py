"""`unibody generate` and `unibody check`: the same compilation, up to the last step."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .pipeline import Result, compile_project
from .project import Project, find_project
from .write import Change, apply, compare

FINE, WRONG, UNUSABLE = 0, 1, 2  # exit statuses


def generate(names: list[str], project: Path) -> int:
    """Write what the definitions compile to; 0 when all compiled, 1 when some were refused, 2 when nothing could be run."""
    try:
        found = find_project(project)
        result = compile_project(found, names or None)
        changes = compare(found, result.outputs, result.complete)
        apply(found, changes)
    except CompileError as error:
        return _refuse(error.diagnostics, UNUSABLE)
    for change in changes:
        if change.kind != "unchanged":
            print(f"{change.kind} {change.path}")
    counts = {kind: sum(c.kind == kind for c in changes) for kind in ("created", "updated", "unchanged", "removed")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return _refuse(result.diagnostics, WRONG) if result.diagnostics else FINE


def check(names: list[str], project: Path) -> int:
    """Compare the checked-in files with what the definitions compile to; 0 when equal, 1 when not, 2 when nothing could be run."""
    try:
        found = find_project(project)
        result = compile_project(found, names or None)
        changes = [c for c in compare(found, result.outputs, result.complete) if c.kind != "unchanged"]
    except CompileError as error:
        return _refuse(error.diagnostics, UNUSABLE)
    for change in changes:
        print(_difference(change))
    if result.diagnostics:
        return _refuse(result.diagnostics, WRONG)
    if changes:
        print(f"{len(changes)} of {len(result.outputs)} files differ; run: {_remedy(found, result, names)}")
        return WRONG
    print(f"{len(result.outputs)} files are up to date")
    return FINE


def _difference(change: Change) -> str:
    """The verdict on one file and its diff, from the current text to the expected one."""
    verdict = {"created": "missing", "updated": "stale", "removed": "orphaned"}[change.kind]
    rows = difflib.unified_diff(
        (change.current or "").splitlines(), (change.expected or "").splitlines(),
        f"{change.path} (current)", f"{change.path} (expected)", lineterm="",
    )  # fmt: skip
    return "\n".join([f"{verdict}: {change.path}", *(rows if change.kind == "updated" else ())])


def _remedy(project: Project, result: Result, names: list[str]) -> str:
    return " ".join(["unibody generate", *names])


def _refuse(diagnostics: tuple[Diagnostic, ...], status: int) -> int:
    for diagnostic in diagnostics:
        print(diagnostic, file=sys.stderr)
    count = len(diagnostics)
    print(f"{count} error{'s' if count != 1 else ''}", file=sys.stderr)
    return status
