"""Stage 11: the only place that touches the output folder. Each file is replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .project import Project
from .render import MARK

TEMPORARY = ".unibody-tmp-"


@dataclass(frozen=True)
class Change:
    """What happened, or would happen, to one output: created, updated, unchanged or removed."""

    path: str
    kind: str
    current: str | None
    expected: str | None


def compare(project: Project, outputs: Mapping[str, str], complete: bool) -> list[Change]:
    """How the folder differs from `outputs`; files of ours that nothing makes any more count only when `outputs` is complete."""
    changes = []
    for path, expected in sorted(outputs.items()):
        current = _read(project.root / path)
        kind = "created" if current is None else "unchanged" if current == expected else "updated"
        changes.append(Change(path, kind, current, expected))
    if complete:
        changes += [Change(path, "removed", text, None) for path, text in orphans(project, outputs)]
    return changes


def apply(project: Project, changes: list[Change]) -> None:
    """Make the changes. A file that does not carry our header is never overwritten or removed."""
    for change in changes:
        if change.kind == "updated" and change.current is not None and not is_ours(change.current):
            remedy = "move it away, or give the definition another name"
            raise CompileError(
                Diagnostic("UB024", "a file that unibody did not write is in the way", remedy, change.path)
            )
    try:
        for folder in {(project.root / change.path).parent for change in changes}:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)
        for change in changes:
            if change.kind == "removed":
                (project.root / change.path).unlink(missing_ok=True)
            elif change.kind != "unchanged" and change.expected is not None:
                replace_file(project.root / change.path, change.expected)
    except OSError as error:
        path = Path(error.filename or project.output).name
        remedy = f"make `{project.output}/` writable and run again"
        raise CompileError(
            Diagnostic("UB022", f"cannot write `{path}`: {error.strerror}", remedy, project.output)
        ) from None


def create(project: Project, files: Mapping[str, str]) -> None:
    """Write new files; when one of them exists already, refuse and write none."""
    for path in files:
        if (project.root / path).exists():
            message, remedy = f"`{path}` exists already", "choose another name, or move it away"
            raise CompileError(Diagnostic("UB027", message, remedy, path))
    apply(project, [Change(path, "created", None, text) for path, text in files.items()])


def orphans(project: Project, outputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Files in the output folder that carry our header and that no definition makes, with their text."""
    base = project.root / project.output
    found = []
    for file in sorted([*base.rglob("*.py"), *base.rglob("*.pyi")]) if base.is_dir() else ():
        path = file.relative_to(project.root).as_posix()
        text = _read(file) if path not in outputs else None
        if text is not None and is_ours(text):
            found.append((path, text))
    return found


def is_ours(text: str) -> bool:
    return any(line.startswith(MARK) for line in text.split("\n")[:3])


def _read(file: Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def replace_file(file: Path, text: str) -> None:
    """Write beside the file, then rename over it: at every moment it holds its old or its new bytes."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
        os.chmod(name, file.stat().st_mode & 0o777 if file.exists() else 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
