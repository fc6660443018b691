"""`unibody generate`, `check` and `diff`: the same compilation, up to the last step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from .diagnostics import CompileError, Diagnostic
from .memory import recall, remember
from .progress import progress
from .project import Project, find_project
from .report import (
    FINE,
    UNUSABLE,
    VERDICTS,
    WRONG,
    Format,
    coloured,
    difference,
    publish,
    refuse,
    refuse_as,
    verdict,
)

if TYPE_CHECKING:
    from .pipeline import Result
    from .session import Session
    from .write import Change

NOTE = (
    "note: nothing in a generated file records what it was made from: a stale one was edited by hand, "
    "or its definition, a parent or a core block has changed since"
)


def generate(
    names: list[str], project: Path, form: Format = "text", jobs: int = 1, session: Session | None = None
) -> int:
    """Write what the definitions compile to; 0 when all compiled, 1 when some were refused, 2 when nothing could be run."""
    try:
        found = find_project(project)
        known = None if names else recall(found)
        if known is not None:
            return _report_generate([], known, (), form)
        result, changes = _compile(found, names, jobs, session)
        from .write import apply

        apply(found, changes)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    done = [change for change in changes if change.kind != "unchanged"]
    return _report_generate(done, len(changes) - len(done), result.diagnostics, form)


def _report_generate(changes: list[Change], unchanged: int, diagnostics: tuple[Diagnostic, ...], form: Format) -> int:
    status = WRONG if diagnostics else FINE
    if form != "text":
        return publish(diagnostics, [(change.path, change.kind) for change in changes], status, form)
    for change in changes:
        print(f"{change.kind} {change.path}")
    counts = {kind: sum(c.kind == kind for c in changes) for kind in ("created", "updated", "removed")}
    print(
        "{created} created, {updated} updated, {unchanged} unchanged, {removed} removed".format(
            unchanged=unchanged, **counts
        )
    )
    return refuse(diagnostics, status) if diagnostics else status


def show(name: str, project: Path) -> int:
    """Print what one definition compiles to, and write nothing; 1 when it was refused, 2 when it could not be found."""
    from .discover import discover, select
    from .pipeline import compile_project

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
        found = find_project(project)
        known = None if names else recall(found)
        if known is not None:
            return _report_check([], known, (), names, form)
        result, changes = _compile(found, names, jobs)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    wrong = [change for change in changes if change.kind != "unchanged"]
    return _report_check(wrong, len(result.outputs), result.diagnostics, names, form)


def _report_check(
    changes: list[Change], count: int, diagnostics: tuple[Diagnostic, ...], names: list[str], form: Format
) -> int:
    status = WRONG if diagnostics or changes else FINE
    remedy = " ".join(["unibody generate", *names])
    if form != "text":
        states = [(change.path, VERDICTS[change.kind]) for change in changes]
        if form == "github":
            states = [(path, f"{state}; run: {remedy}") for path, state in states]
        return publish(diagnostics, states, status, form)
    for change in changes:
        print(verdict(change))
    if any(change.kind == "updated" for change in changes):
        print(NOTE)
    if diagnostics:
        return refuse(diagnostics, status)
    print(f"{len(changes)} of {count} files differ; run: {remedy}" if changes else f"{count} files are up to date")
    return status


def diff(names: list[str], project: Path) -> int:
    """Print what `generate` would change, as a patch; 0 when nothing, 1 when something or not all compiled, 2 when nothing could be run."""
    try:
        found = find_project(project)
        if not names and recall(found) is not None:
            return FINE
        result, changes = _compile(found, names)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    wrong = [change for change in changes if change.kind != "unchanged"]
    for change in wrong:
        print("\n".join(coloured(difference(change))))
    if result.diagnostics:
        return refuse(result.diagnostics, WRONG)
    return WRONG if wrong else FINE


def _compile(
    project: Project, names: list[str], jobs: int = 1, session: Session | None = None
) -> tuple[Result, list[Change]]:
    """What the definitions compile to, and how the disk differs from it; that it does not is remembered."""
    from .pipeline import compile_project
    from .write import compare

    start = time.time_ns()
    with progress() as seen:
        result = compile_project(project, names or None, jobs, seen, session)
    changes = compare(project, result.outputs, result.complete)
    if result.complete and all(change.kind == "unchanged" for change in changes):
        remember(project, len(changes), result.modules, start)
    return result, changes


def find_tree(dialect: str | None, root: Path | None, project: Path) -> Path | None:
    """The folder of the models where the transformers dialect is asked for, by name or in [tool.unibody]; None for our own.

    Raises ValueError where the dialect or the folder is not known.
    """
    if dialect == "unibody":
        return None
    if root is not None:
        if dialect is None:
            raise ValueError("--root goes with --dialect transformers")
        return root
    try:
        found = find_project(project)
    except CompileError:
        if dialect is None:
            return None
        raise ValueError("name the folder of the models with --root, or `sources` in [tool.unibody]") from None
    if (dialect or found.dialect) == "unibody":
        return None
    if (dialect or found.dialect) != "transformers":
        raise ValueError(f'`dialect` in [tool.unibody] is {found.dialect!r}: write "unibody" or "transformers"')
    return found.root / found.sources[0]
