"""Stage 11: the only place that touches the output folder. Each file is replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .dialect import Outcome
from .project import Project

TEMPORARY = ".unibody-tmp-"
TRIES = 5
REMEDY = "move it away, or give the definition another name"


@dataclass(frozen=True)
class Change:
    """What happened, or would happen, to one output: created, updated, unchanged or removed."""

    path: str
    kind: str
    current: str | None
    expected: str | None


def compare(root: Path, result: Outcome, orphans: Iterable[str] = ()) -> list[Change]:
    """How the files below a folder differ from what a compilation came to, in order of their paths; orphans go."""
    changes = [Change(path, "unchanged", None, None) for path in result.settled]
    for path, expected in result.outputs.items():
        current = read_file(root / path)
        kind = "created" if current is None else "unchanged" if current == expected else "updated"
        changes.append(Change(path, kind, current, expected))
    changes += [Change(path, "removed", read_file(root / path), None) for path in orphans]
    return sorted(changes, key=lambda change: (change.kind == "removed", change.path))


def apply(root: Path, changes: Sequence[Change], is_ours: Callable[[str], bool]) -> None:
    """Make the changes below a folder. A file that does not say that it is ours is never overwritten or removed."""
    in_the_way = [
        Diagnostic("UB024", "a file that unibody did not write is in the way", REMEDY, change.path)
        for change in changes
        if change.kind == "updated" and change.current is not None and not is_ours(change.current)
    ]
    if in_the_way:
        raise CompileError(*in_the_way)
    try:
        for folder in {(root / change.path).parent for change in changes}:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)
        for change in changes:
            if change.kind == "removed":
                (root / change.path).unlink(missing_ok=True)
            elif change.kind != "unchanged" and change.expected is not None:
                replace_file(root / change.path, change.expected)
    except OSError as error:
        name, place = Path(error.filename or root).name, changes[0].path.partition("/")[0]
        remedy = f"make `{place}/` writable and run again"
        raise CompileError(Diagnostic("UB022", f"cannot write `{name}`: {error.strerror}", remedy, place)) from None


def create(project: Project, files: Mapping[str, str]) -> None:
    """Write new files; when one of them exists already, refuse and write none."""
    for path in files:
        if (project.root / path).exists():
            message, remedy = f"`{path}` exists already", "choose another name, or move it away"
            raise CompileError(Diagnostic("UB027", message, remedy, path))
    apply(project.root, [Change(path, "created", None, text) for path, text in files.items()], lambda text: False)


def read_file(file: Path) -> str | None:
    """The text of a file; None where there is none. Refused when something else is in its place."""
    try:
        return file.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        remedy = "make it a file that can be read, or move it away"
        raise CompileError(
            Diagnostic("UB022", f"cannot read `{file.name}`: {error.strerror}", remedy, file.parent.name)
        ) from None


def replace_file(file: Path, text: str) -> None:
    """Write beside the file, then rename over it: at every moment it holds its old or its new bytes."""
    for _ in range(TRIES - 1):
        with suppress(FileNotFoundError):  # another run took the file beside it for what a killed one had left
            return _replace(file, text)
    return _replace(file, text)


def _replace(file: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
        os.chmod(name, file.stat().st_mode & 0o777 if file.exists() else 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
