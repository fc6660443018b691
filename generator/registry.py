"""The tables `model_type` and `quant_method` -> file and classes, read from the flattened classes: nothing is typed twice."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .project import Project
from .render import header, render_template
from .unit import Unit

# What makes a class the configuration of an entry, and what names the classes that belong to it.
KEYS = {"model_type": "auto_class", "quant_method": "auto_quantizer"}


@dataclass(frozen=True)
class Entry:
    """One model type or quantization method; `classes` pairs each auto class, or variant, with the class that it makes."""

    attribute: str  # by which it is found: a key of KEYS
    value: str
    module: str
    config: str
    classes: tuple[tuple[str, str], ...]


def registry_path(project: Project) -> str:
    return f"{project.output}/registry.py"


def registry_entries(unit: Unit) -> list[Entry]:
    """The configurations of an output with a literal `model_type` or `quant_method`, and the classes that say what they are.

    A quantization method may have a configuration alone, before its layers are made.
    """
    literals = {
        name: _literals(part.definition.node)
        for name, part in unit.parts.items()
        if part.space == unit.source.path and part.definition.kind == "class"
    }
    module = unit.source.output.rpartition("/")[2].removesuffix(".py")
    order = {name: index for index, name in enumerate(unit.family.definitions)}
    entries = []
    for attribute, named in KEYS.items():
        classes = sorted(((f[named], n) for n, f in literals.items() if named in f), key=lambda pair: order[pair[1]])
        entries += [
            Entry(attribute, found[attribute], module, name, tuple(classes))
            for name, found in literals.items()
            if attribute in found and (classes or attribute == "quant_method")
        ]
    return entries


def render_registry(project: Project, entries: list[Entry]) -> str:
    listed = sorted(entries, key=lambda entry: entry.value)
    return render_template(
        "registry.py.j2",
        header=header(project, f"{', '.join(project.sources)}/", "unibody generate"),
        models=[entry for entry in listed if entry.attribute == "model_type"],
        quantizers=[entry for entry in listed if entry.attribute == "quant_method"],
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
