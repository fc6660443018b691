"""`unibody generate`, `check` and `diff`: the same compilation, up to the last step."""

from __future__ import annotations

from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .discover import discover, select
from .pipeline import Result, compile_project
from .progress import progress
from .project import Project, find_project
from .report import FINE, UNUSABLE, VERDICTS, WRONG, Format, as_github, as_json, coloured, difference, refuse, verdict
from .write import Change, apply, compare

NOTE = (
    "note: nothing in a generated file records what it was made from: a stale one was edited by hand, "
    "or its definition, a parent or a core block has changed since"
)


def generate(names: list[str], project: Path, form: Format = "text", jobs: int = 1) -> int:
    """Write what the definitions compile to; 0 when all compiled, 1 when some were refused, 2 when nothing could be run."""
    try:
        found, result = _compile(names, project, jobs)
        changes = compare(found, result.outputs, result.complete)
        apply(found, changes)
    except CompileError as error:
        return _refuse(error.diagnostics, UNUSABLE, form)
    status = WRONG if result.diagnostics else FINE
    done = [(change.path, change.kind) for change in changes if change.kind != "unchanged"]
    if form != "text":
        return _publish(result.diagnostics, done, status, form)
    for path, kind in done:
        print(f"{kind} {path}")
    counts = {kind: sum(c.kind == kind for c in changes) for kind in ("created", "updated", "unchanged", "removed")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return refuse(result.diagnostics, status) if status else FINE


def show(name: str, project: Path) -> int:
    """Print what one definition compiles to, and write nothing; 1 when it was refused, 2 when it could not be found."""
    try:
        found = find_project(project)
        keys = select(discover(found), [name])
        if len(keys) > 1:
            message = f"`{name}` means {' and '.join(f'`{key}`' for key in keys)}"
            raise CompileError(Diagnostic("UB023", message, "name one of them in full", name))
        result = compile_project(found, keys)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    if result.diagnostics:
        return refuse(result.diagnostics, WRONG)
    print(result.outputs[result.sources[keys[0]].output], end="")
    return FINE


def check(names: list[str], project: Path, form: Format = "text", jobs: int = 1) -> int:
    """Compare the checked-in files with what the definitions compile to; 0 when equal, 1 when not, 2 when nothing could be run."""
    try:
        found, result = _compile(names, project, jobs)
        changes = _changes(found, result)
    except CompileError as error:
        return _refuse(error.diagnostics, UNUSABLE, form)
    status = WRONG if result.diagnostics or changes else FINE
    remedy = " ".join(["unibody generate", *names])
    if form != "text":
        states = [(c.path, VERDICTS[c.kind]) for c in changes]
        if form == "github":
            states = [(path, f"{state}; run: {remedy}") for path, state in states]
        return _publish(result.diagnostics, states, status, form)
    for change in changes:
        print(verdict(change))
    if any(change.kind == "updated" for change in changes):
        print(NOTE)
    if result.diagnostics:
        return refuse(result.diagnostics, status)
    count = len(result.outputs)
    print(f"{len(changes)} of {count} files differ; run: {remedy}" if changes else f"{count} files are up to date")
    return status


def diff(names: list[str], project: Path) -> int:
    """Print what `generate` would change, as a patch; 0 when nothing, 1 when something or not all compiled, 2 when nothing could be run."""
    try:
        found, result = _compile(names, project)
        changes = _changes(found, result)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    for change in changes:
        print("\n".join(coloured(difference(change))))
    if result.diagnostics:
        return refuse(result.diagnostics, WRONG)
    return WRONG if changes else FINE


def _compile(names: list[str], project: Path, jobs: int = 1) -> tuple[Project, Result]:
    found = find_project(project)
    with progress() as seen:
        return found, compile_project(found, names or None, jobs, seen)


def _changes(project: Project, result: Result) -> list[Change]:
    return [c for c in compare(project, result.outputs, result.complete) if c.kind != "unchanged"]


def _refuse(diagnostics: tuple[Diagnostic, ...], status: int, form: Format) -> int:
    return refuse(diagnostics, status) if form == "text" else _publish(diagnostics, [], status, form)


def _publish(diagnostics: tuple[Diagnostic, ...], files: list[tuple[str, str]], status: int, form: Format) -> int:
    """The same as annotations or as one JSON document, on standard output."""
    if form == "json":
        print(as_json(diagnostics, files, status))
    for row in as_github(diagnostics, files if status else []) if form == "github" else ():
        print(row)
    return status
