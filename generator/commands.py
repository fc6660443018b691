"""`unibody generate`, `check` and `diff`: the same compilation, up to the last step, in either dialect."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .diagnostics import CompileError, Diagnostic
from .dialect import Dialect, Outcome, dialect_of
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
    located,
    publish,
    refuse,
    refuse_as,
    verdict,
    write_report,
)

if TYPE_CHECKING:
    from .session import Session
    from .write import Change

NOTE = (
    "note: nothing in a generated file records what it was made from: a stale one was edited by hand, "
    "or its definition, a parent or a core block has changed since"
)
FEW = 20  # stale files whose differences `check` shows unasked


def generate(
    names: list[str],
    project: Path | Project,
    form: Format = "text",
    jobs: int = 1,
    session: Session | None = None,
    output: Path | None = None,
) -> int:
    """Write what the definitions compile to; 0 when all compiled, 1 when some were refused, 2 when nothing could be run.

    `output` is a folder to write below, in place of the project's own.
    """
    try:
        found = find_project(project)
        dialect = dialect_of(found)
        known = None if names or output else dialect.recall(found)
        if known is not None:
            return _report_generate(found, [], known, (), form)
        result, changes = _compile(found, dialect, names, jobs, session, output)
        from .write import apply

        apply(output or found.root, changes, dialect.is_ours)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    done = [change for change in changes if change.kind != "unchanged"]
    return _report_generate(found, done, len(changes) - len(done), result.diagnostics, form)


def _report_generate(
    project: Project, changes: list[Change], unchanged: int, diagnostics: Sequence[Diagnostic], form: Format
) -> int:
    status = WRONG if diagnostics else FINE
    placed, files = located(project, diagnostics, [(change.path, change.kind) for change in changes])
    if form != "text":
        return publish(placed, files, status, form)
    for change in changes:
        print(f"{change.kind} {change.path}")
    counts = {kind: sum(c.kind == kind for c in changes) for kind in ("created", "updated", "removed")}
    print(
        "{created} created, {updated} updated, {unchanged} unchanged, {removed} removed".format(
            unchanged=unchanged, **counts
        )
    )
    return refuse(placed, status) if placed else status


def show(name: str, project: Path | Project) -> int:
    """Print the one file that a definition compiles to, and write nothing; 1 when it was refused, 2 when it could not be found."""
    try:
        found = find_project(project)
        dialect = dialect_of(found)
        result = dialect.compile(found, [name], anew=True)
        if not result.diagnostics:
            outputs = dialect.outputs_of(result, name)
            if len(outputs) > 1:
                message = f"`{name}` means {' and '.join(f'`{output}`' for output in outputs)}"
                raise CompileError(Diagnostic("UB023", message, "name one of them", name))
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    if result.diagnostics:
        return refuse(located(found, result.diagnostics)[0], WRONG)
    print(result.outputs[next(iter(outputs.values()))], end="")
    return FINE


def check(
    names: list[str], project: Path | Project, form: Format = "text", jobs: int = 1, report: Path | None = None
) -> int:
    """Compare the checked-in files with what the definitions compile to; 0 when equal, 1 when not, 2 when nothing could be run.

    `report` is a file to write the findings to, with what the run cost, as JSON.
    """
    try:
        found = find_project(project)
        dialect = dialect_of(found)
        known = None if names or report else dialect.recall(found)
        if known is not None:
            return _report_check(found, dialect, Outcome({}, (), True), [], known, names, form)
        result, changes = _compile(found, dialect, names, jobs)
        if report is not None:
            write_report(report, result, changes)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    wrong = [change for change in changes if change.kind != "unchanged"]
    count = len(changes)
    return _report_check(found, dialect, result, wrong, count, names, form)


def _report_check(
    project: Project,
    dialect: Dialect[Outcome],
    result: Outcome,
    changes: list[Change],
    count: int,
    names: list[str],
    form: Format,
) -> int:
    status = WRONG if result.diagnostics or changes else FINE
    remedy = " ".join(filter(None, ["unibody generate", project.options, *names]))
    placed, files = located(project, result.diagnostics, [(c.path, VERDICTS[c.kind]) for c in changes])
    if form != "text":
        if form == "github":
            files = [(path, f"{state}; run: {remedy}") for path, state in files]
        return publish(placed, files, status, form)
    stale = [change for change in changes if change.kind == "updated"]
    for change in changes:
        first, *rows = verdict(change).split("\n")
        print(first)
        for reason in dialect.why(project, result, change.path) if change in stale else ():
            print(f"  {reason}")
        if rows and (names or len(stale) <= FEW):
            print("\n".join(rows))
    if len(stale) > FEW and not names:
        print(
            f"note: {len(stale)} files are stale: `unibody diff` shows the differences, `unibody check NAME` those of some"
        )
    elif stale:
        print(NOTE)
    if placed:
        return refuse(placed, status)
    print(f"{len(changes)} of {count} files differ; run: {remedy}" if changes else f"{count} files are up to date")
    return status


def diff(names: list[str], project: Path | Project, jobs: int = 1) -> int:
    """Print what `generate` would change, as a patch; 0 when nothing, 1 when something or not all compiled, 2 when nothing could be run."""
    try:
        found = find_project(project)
        dialect = dialect_of(found)
        if not names and dialect.recall(found) is not None:
            return FINE
        result, changes = _compile(found, dialect, names, jobs)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    wrong = [change for change in changes if change.kind != "unchanged"]
    for change in wrong:
        print("\n".join(coloured(difference(change))))
    if result.diagnostics:
        return refuse(located(found, result.diagnostics)[0], WRONG)
    return WRONG if wrong else FINE


def _compile(
    project: Project,
    dialect: Dialect[Outcome],
    names: list[str],
    jobs: int = 1,
    session: Session | None = None,
    output: Path | None = None,
) -> tuple[Outcome, list[Change]]:
    """What the definitions compile to, and how the disk differs from it; that it does not is remembered."""
    from .write import compare

    start = time.time_ns()
    with progress() as seen:
        result = dialect.compile(project, names, jobs, seen, session, anew=output is not None)
    made = {*result.outputs, *result.settled}
    orphans = dialect.orphans(project, made) if result.complete and output is None else []
    changes = compare(output or project.root, result, orphans)
    if output is None:
        dialect.remember(project, result, changes, start)
    return result, changes
