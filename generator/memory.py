"""What the last run found: that nothing has to change. The next one says so at once if nothing has changed since.

Kept is a digest of all that the answer depends on: the files that were read, the list of definitions, the templates, the
compiler's own code, the versions of the formatter and of Python, and the generated files. An output is never kept.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from .discover import discover
from .project import HERE, Project

FOLDER = ".unibody_cache"
TEMPLATES = HERE.parent / "templates"
SETTLED = (
    2_000_000_000  # nanoseconds; a file changed less than this before the run began may change once more unnoticed
)


def recall(project: Project) -> int | None:
    """How many outputs are up to date, if that was found before and nothing has changed since; None if it is not known."""
    try:
        digest, count, *read = _note(project).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return int(count) if digest == _digest(project, map(Path, read)) else None


def remember(project: Project, count: int, modules: Iterable[str], start: int) -> None:
    """Keep that all of `count` outputs are what the run that began at `start` (nanoseconds) made of the modules, named as displayed."""
    places = [[base / path for base in (project.root, HERE.parent.parent.resolve())] for path in modules]
    found = [[file for file in candidates if file.is_file()] for candidates in places]
    read = sorted({file for files in found for file in files})
    files = _files(project, read)
    if not all(found) or any(_changed(file) > start - SETTLED for file in files):
        return
    digest = _digest(project, read)
    if digest is None:
        return
    try:
        note = _note(project)
        note.parent.mkdir(exist_ok=True)
        (note.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        note.write_text("\n".join([digest, str(count), *map(str, read)]), encoding="utf-8")
    except OSError:
        pass  # a folder that cannot be written only makes the next run slower


def _changed(file: Path) -> int:
    """When a file's content or its place changed last; moving an old file here counts."""
    status = file.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _note(project: Project) -> Path:
    return project.root / FOLDER / "unchanged"


def _files(project: Project, read: Iterable[Path]) -> list[Path]:
    """All files that the outputs depend on, and the outputs, in a fixed order."""
    output = project.root / project.output
    found = {project.root / "pyproject.toml", *read, *(source.file for source in discover(project).values())}
    found |= {*HERE.rglob("*.py"), *TEMPLATES.rglob("*.j2"), *output.rglob("*.py"), *output.rglob("*.pyi")}
    return sorted(found)


def _digest(project: Project, read: Iterable[Path]) -> str | None:
    """None where a file has gone, or where the formatter is not installed beside us, so that its version is not known."""
    try:
        formatter = metadata.version(project.formatter.partition("==")[0])
        found = hashlib.sha256(f"{formatter}\n{sys.version}\n".encode())
        for file in _files(project, read):
            content = file.read_bytes()
            found.update(f"{file}\n{len(content)}\n".encode())
            found.update(content)
    except (OSError, metadata.PackageNotFoundError):
        return None
    return found.hexdigest()
