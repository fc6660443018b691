"""Stage 4: a parent's definitions in the names of the child (family polymorphism).

A *role* is what a member is to its family: `LlamaMLP` is the MLP of llama's. Where inherited code names a member of the
parent's family it means the child's member in that role, so the names that resolve to members are replaced, and with them
attributes and whole strings equal to the parent's `model_type`, strings that are exactly a member's name, and members' names
in comments and docstrings. Nothing else changes.
"""

from __future__ import annotations

import ast
import os

from .diagnostics import CompileError, at
from .graph import Graph, Internal
from .parse import Definition, Module
from .substitution import substitute
from .unit import Family, Unit


def rename(unit: Unit) -> None:
    """Start the unit's family and bring every member of its parents' families into its names."""
    graph, path, module = unit.graph, unit.source.path, unit.module
    family = Family(
        path, _prefix(module), _model_type(module), own=frozenset(module.definitions), exports=module.exports
    )
    for name, definition in module.definitions.items():
        if definition.kind == "class":
            unit.bases[name] = _definition_bases(graph, path, definition)
    for parent in dict.fromkeys(base.path for found in unit.bases.values() for base in found.values()):
        other = unit.families[parent]
        roles = unit.roles[parent] = _roles(family, other, unit.bases)
        types = (other.model_type, family.model_type)
        unit.inherited[parent] = {
            name: substitute(definition, roles, types)
            for name, definition in other.definitions.items()
            if name not in family.ambiguous
        }
    unit.families[path] = family


def _definition_bases(graph: Graph, path: str, definition: Definition) -> dict[str, Internal]:
    """The bases of a class that are to be merged, as the class writes them."""
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    found = {}
    for base in node.bases:
        binding = graph.bindings[path].get(base.id) if isinstance(base, ast.Name) else None
        if isinstance(base, ast.Name) and isinstance(binding, Internal) and binding.path not in graph.core:
            parent = graph.modules[binding.path].definitions.get(binding.name)
            if parent is None or parent.kind != "class":
                message = f"`{binding.name}` of `{binding.path}` is not a class"
                raise CompileError(at(definition.text, base, "UB005", message, "inherit from a class"))
            found[base.id] = binding
    return found


def _roles(family: Family, parent: Family, bases: dict[str, dict[str, Internal]]) -> dict[str, str]:
    """For each member of the parent's family the name of the child's member in its role."""
    fillers: dict[str, list[str]] = {}
    for name, found in bases.items():
        for internal in found.values():
            if internal.path == parent.path:
                fillers.setdefault(internal.name, []).append(name)
    roles = {}
    for name in parent.definitions:
        filling = fillers.get(name, [])
        if len(filling) > 1:
            family.ambiguous[name] = filling
            roles[name] = name
        elif filling:
            roles[name] = filling[0]
        else:
            roles[name] = derived_name(name, (parent.prefix, parent.model_type), (family.prefix, family.model_type))
    return roles


def derived_name(name: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """The child's name for a member that it does not mention; `old` and `new` are (class prefix, model type)."""
    for before, after in (
        (old[0], new[0]),
        (old[1] + "_", new[1] + "_"),
        (old[1].upper() + "_", new[1].upper() + "_"),
    ):
        if before.strip("_") and name.startswith(before):
            return after + name[len(before) :]
    return name


def _prefix(module: Module) -> str:
    """The prefix of a family's classes: that of its configuration, or what all its class names begin with."""
    classes = [d.name for d in module.definitions.values() if d.kind == "class"]
    for name in classes:
        if name.endswith("Config") and name != "Config":
            return name.removesuffix("Config")
    common = os.path.commonprefix(classes)
    boundary = min((len(name) for name in classes), default=0)
    return common if len(common) < boundary else ""


def _model_type(module: Module) -> str:
    """The literal `model_type` of the definition's configuration, or the name of its file."""
    for definition in module.definitions.values():
        for node in getattr(definition.node, "body", ()) if definition.kind == "class" else ():
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id == "model_type" and isinstance(value, ast.Constant):
                return str(value.value)
    return module.stem.removeprefix("modular_")
