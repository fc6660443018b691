"""Our own dialect: a definition makes one file, building blocks included."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .diagnostics import Diagnostic
from .dialect import Dialect, Trace
from .memory import recall, remember
from .progress import Seen
from .project import Project

if TYPE_CHECKING:
    from .pipeline import Result
    from .session import Session
    from .tools.family_tree import Tree
    from .write import Change


class Unibody(Dialect["Result"]):
    """The passes are in `pipeline.py`; that nothing has changed is kept in one digest."""

    def compile(
        self,
        project: Project,
        names: list[str],
        jobs: int = 1,
        seen: Seen | None = None,
        session: Session | None = None,
        anew: bool = False,
    ) -> Result:
        from .pipeline import compile_project

        return compile_project(project, names or None, jobs, seen, session)

    def is_ours(self, text: str) -> bool:
        from .render import MARK

        return any(line.startswith(MARK) for line in text.split("\n")[:3])

    def orphans(self, project: Project, made: Collection[str]) -> list[str]:
        found = []
        base = project.root / project.output
        for file in sorted([*base.rglob("*.py"), *base.rglob("*.pyi")]) if base.is_dir() else ():
            path = file.relative_to(project.root).as_posix()
            if path not in made and self.is_ours(file.read_bytes().decode("utf-8", errors="replace")):
                found.append(path)
        return found

    def folders(self, project: Project) -> list[Path]:
        from .render import TEMPLATES

        return [*(project.root / folder for folder in project.sources), *project.packages.values(), TEMPLATES]

    def recall(self, project: Project) -> int | None:
        return recall(project)

    def remember(self, project: Project, result: Result, changes: Sequence[Change], start: int) -> None:
        if result.complete and all(change.kind == "unchanged" for change in changes):
            remember(project, len(changes), result.modules, start)

    def outputs_of(self, result: Result, name: str) -> dict[str, str]:
        from .discover import select

        return {key: result.sources[key].output for key in select(result.sources, [name])}

    def trace(self, project: Project, path: str) -> Trace:
        from .tools.provenance import trace_project

        return trace_project(project, path)

    def family_tree(self, project: Project, names: list[str], classes: bool) -> tuple[Tree, Sequence[Diagnostic]]:
        from .tools.relations import read_project

        return read_project(project, names, classes)
