"""The compiler without its last step: calling the formatter takes longer than all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unibody.generator.pipeline import Result, compile_project
from unibody.generator.project import Project, find_project
from unibody.generator.session import Session


class Unformatted(Session):
    """A session in which nothing is formatted."""

    def format(self, project: Project, files: Mapping[str, str]) -> dict[str, str]:
        return dict(files)


def compile_definitions(root: Path, names: list[str] | None = None, session: Unformatted | None = None) -> Result:
    """What the compiler makes of the project in that folder, as it is before formatting."""
    return compile_project(find_project(root), names, session=session or Unformatted())
