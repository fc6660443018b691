"""The table `model_type` -> file and classes, read from the flattened classes: nothing is typed twice."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .project import Project
from .render import header, render_template
from .unit import Unit


@dataclass(frozen=True)
class Entry:
    """One model type; `classes` pairs each auto class with the class that it makes."""

    model_type: str
    module: str
    config: str
    classes: tuple[tuple[str, str], ...]


def registry_path(project: Project) -> str:
    return f"{project.output}/registry.py"


def registry_entries(unit: Unit) -> list[Entry]:
    """The configurations of an output with a literal `model_type`, and the classes with a literal `auto_class`."""
    literals = {
        name: _literals(part.definition.node)
        for name, part in unit.parts.items()
        if part.space == unit.source.path and part.definition.kind == "class"
    }
    classes = tuple((found["auto_class"], name) for name, found in literals.items() if "auto_class" in found)
    module = unit.source.output.rpartition("/")[2].removesuffix(".py")
    order = {name: index for index, name in enumerate(unit.family.definitions)}
    return [
        Entry(found["model_type"], module, name, tuple(sorted(classes, key=lambda pair: order[pair[1]])))
        for name, found in literals.items()
        if "model_type" in found and classes
    ]


def render_registry(project: Project, entries: list[Entry]) -> str:
    return render_template(
        "registry.py.j2",
        header=header(project, f"{', '.join(project.sources)}/", "unibody generate"),
        models=sorted(entries, key=lambda entry: entry.model_type),
    )


def _literals(node: ast.AST) -> dict[str, str]:
    """The string attributes of a class body."""
    found = {}
    for child in getattr(node, "body", ()):
        target = child.targets[0] if isinstance(child, ast.Assign) else getattr(child, "target", None)
        value = getattr(child, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[target.id] = value.value
    return found
