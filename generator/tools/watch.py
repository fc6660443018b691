"""`unibody watch`: generates whenever a source has changed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ..commands import generate
from ..diagnostics import CompileError
from ..dialect import dialect_of
from ..project import Project, find_project
from ..report import FINE, UNUSABLE, refuse
from ..session import Session

INTERVAL = 0.2  # seconds between two looks at the files

Stamps = dict[Path, tuple[int, int]]  # time of change in nanoseconds, size


def watch(names: list[str], project: Path | Project, wait: Callable[[float], None] = time.sleep) -> int:
    """Generate now and after every change, until Ctrl-C; 2 when there is no project to begin with."""
    try:
        found = find_project(project)
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    folders = dict.fromkeys(f"{found.display(folder)}/" for folder in dialect_of(found).folders(found))
    print(f"watching {', '.join(folders)}; Ctrl-C ends it", flush=True)
    seen: Stamps | None = None
    session = Session()
    try:
        while True:
            stamps = _stamps(found)
            if stamps != seen:
                if seen and any(
                    stamps.get(file) != seen.get(file) for file in stamps.keys() | seen if file.suffix == ".j2"
                ):
                    session = Session()
                seen = stamps
                found = _generate(names, project, found, session)
            wait(INTERVAL)
    except KeyboardInterrupt:
        print()
        return FINE


def _generate(names: list[str], where: Path | Project, project: Project, session: Session) -> Project:
    """One run, timed; returns the project as it is configured now."""
    start = time.perf_counter()
    try:
        generate(names, where, session=session)
        project = find_project(where)
    except CompileError:
        pass  # `generate` has printed what is wrong with pyproject.toml
    except Exception:  # noqa: BLE001  a defect of the compiler must not end the watch: the next change may avoid it
        traceback.print_exc()
        print("internal error: this is a defect of unibody, not of your input")
    print(f"{time.strftime('%H:%M:%S')}  {time.perf_counter() - start:.2f} s", flush=True)
    return project


def _stamps(project: Project) -> Stamps:
    """What tells whether a file has changed, for every file that a compilation may read."""
    found: Stamps = {}
    files = [project.root / "pyproject.toml"]
    for folder in dialect_of(project).folders(project):
        files += [*folder.rglob("*.py"), *folder.rglob("*.j2")]
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue  # gone since the folder was listed: that is a change, too
        found[file] = (status.st_mtime_ns, status.st_size)
    return found
