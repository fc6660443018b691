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
    """The stub's text; `entries` holds those of each output, by its path.

    A class is shown as it is in its file, or, where the project names `stub-bases` for its auto class or its kind, as a class of these bases.
    """
    folder = posixpath.dirname(stub_path(project))
    shown: set[tuple[str, str]] = set()
    needed: dict[str, set[str]] = {}
    classes: dict[str, str] = {}
    for output, listed in entries.items():
        for kinds, name in sorted({pair for entry in listed for pair in _kinds(entry)}):
            module = _module(output, folder)
            kind = next((kind for kind in kinds if kind in project.stub_bases), None)
            if kind is None:
                shown.add((module, name))
                continue
            package, _, file = module.rpartition(".")
            needed.setdefault(package or ".", set()).add(file)
            bases = []
            for base in project.stub_bases[kind]:
                home, _, base_name = base.rpartition(".")
                bases.append(base_name if home else f"{file}.{name}")
                needed.setdefault(home, set()).update({base_name} if home else ())
            classes[name] = ", ".join(bases)
    imports = [(module, ", ".join(sorted(names))) for module, names in needed.items() if module]
    imports += [(module, f"{name} as {name}") for module, name in shown]
    groups = [sorted(pair for pair in imports if (pair[0][0] == ".") is relative) for relative in (False, True)]
    return render_template(
        "names.pyi.j2",
        header=header(project, f"{', '.join(project.sources)}/", "unibody generate"),
        imports=[[{"module": module, "names": names} for module, names in group] for group in groups],
        classes=[{"name": name, "bases": bases} for name, bases in sorted(classes.items())],
    )


def _kinds(entry: Entry) -> list[tuple[tuple[str, ...], str]]:
    """The classes of an entry, each with its kinds: the name that the registry lists it under, and one of KINDS."""
    config, other = ("config", "model") if entry.attribute == "model_type" else ("quantization-config", "quantizer")
    return [((config,), entry.config), *(((listed, other), name) for listed, name in entry.classes)]


def _module(output: str, folder: str) -> str:
    """The module of an output as a file in `folder` imports it: `.models.modeling_llama`."""
    *way, last = posixpath.relpath(output, folder).split("/")
    down = [step for step in way if step != ".."]
    return "." * (len(way) - len(down) + 1) + ".".join([*down, last.removesuffix(".py")])
