"""The stub that lists every class of the registry, for type checkers: what a library imports lazily has its type nevertheless.

Only a project that names one in `stub` of its `[tool.unibody]` gets it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from .project import Project
from .registry import Entry
from .render import header, render_template


def stub_path(project: Project) -> str:
    return f"{project.output}/{project.stub}"


def render_stub(project: Project, entries: Mapping[str, Sequence[Entry]]) -> str:
    """The stub's text; `entries` holds those of each output, by its path."""
    folder = posixpath.dirname(stub_path(project))
    found = {
        (_module(output, folder), name)
        for output, listed in entries.items()
        for entry in listed
        for name in (entry.config, *(name for _, name in entry.classes))
    }
    return render_template(
        "names.pyi.j2",
        header=header(project, f"{', '.join(project.sources)}/", "unibody generate"),
        imports=[{"module": module, "name": name} for module, name in sorted(found)],
    )


def _module(output: str, folder: str) -> str:
    """The module of an output as a file in `folder` imports it: `.models.modeling_llama`."""
    *way, last = posixpath.relpath(output, folder).split("/")
    down = [step for step in way if step != ".."]
    return "." * (len(way) - len(down) + 1) + ".".join([*down, last.removesuffix(".py")])
