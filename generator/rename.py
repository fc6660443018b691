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
from .graph import Internal, unknown_name
from .parse import Definition, Module, assigned_names
from .substitution import substitute
from .unit import Branch, Family, Unit


def rename(unit: Unit) -> None:
    """Start the unit's family and bring every member of its parents' families into its names."""
    graph, path, module = unit.graph, unit.source.path, unit.module
    family = Family(path, _prefix(module), own=frozenset(module.definitions), exports=module.exports)
    family.subfamilies = module.families
    family.model_type = _model_type(module, family, "", module.stem.removeprefix("modular_"))
    family.types = {part: _model_type(module, family, part, family.model_type) for part in module.families}
    problems = [
        unknown_name(module.imports[name][0], binding.path, unit.families[binding.path].definitions)
        for name, binding in graph.bindings[path].items()
        if isinstance(binding, Internal)
        and binding.path in unit.families
        and binding.name not in unit.families[binding.path].definitions
    ]
    if problems:
        raise CompileError(*problems)
    for name, definition in module.definitions.items():
        if definition.kind == "class":
            unit.bases[name] = _definition_bases(unit, definition)
    branches = {
        Branch(base.path, family.subfamily(name)): None
        for name, found in unit.bases.items()
        for base in found.values()
    }
    for branch in branches:
        other = unit.families[branch.parent]
        roles = unit.roles[branch] = _roles(family, other, branch.subfamily, unit.bases)
        types = (other.model_type, family.types.get(branch.subfamily, family.model_type))
        if _literals(graph.modules[branch.parent], "quant_method"):  # a method's name is no part of what it stores
            types = ("", "")
        unit.inherited[branch] = {
            name: substitute(definition, roles, types)
            for name, definition in other.definitions.items()
            if name not in family.ambiguous
        }
    unit.families[path] = family


def _definition_bases(unit: Unit, definition: Definition) -> dict[str, Internal]:
    """The bases of a class that are to be merged, as the class writes them."""
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    found = {}
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        binding = unit.graph.bindings[unit.source.path].get(name.id) if isinstance(name, ast.Name) else None
        if isinstance(binding, Internal) and binding.path in unit.families:
            if not isinstance(base, ast.Name):
                message = f"`{ast.unparse(base)}` is no class that could be merged"
                raise CompileError(at(definition.text, base, "UB013", message, f"inherit from `{ast.unparse(name)}`"))
            if unit.families[binding.path].definitions[binding.name].kind != "class":
                message = f"`{binding.name}` of `{binding.path}` is not a class"
                raise CompileError(at(definition.text, base, "UB005", message, "inherit from a class"))
            found[base.id] = binding
    return found


def _roles(family: Family, parent: Family, subfamily: str, bases: dict[str, dict[str, Internal]]) -> dict[str, str]:
    """For each member of the parent's family the name of the child's member in its role, as the sub-family sees it."""
    fillers: dict[str, list[str]] = {}
    for name, found in bases.items():
        for internal in found.values():
            if internal.path == parent.path:
                fillers.setdefault(internal.name, []).append(name)
    new = (subfamily or family.prefix, family.types.get(subfamily, family.model_type))
    roles = {}
    for name in parent.definitions:
        every = fillers.get(name, [])
        near = [n for n in every if family.subfamily(n) == subfamily]
        common = [n for n in every if not family.subfamily(n)] if subfamily else every
        filling = near or common
        if len(filling) > 1:
            family.ambiguous[name] = filling
            roles[name] = name
        elif filling:
            roles[name] = filling[0]
        else:
            roles[name] = derived_name(name, (parent.prefix, parent.model_type), new)
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
    """The prefix of a family's classes: what its configurations' names share, or else what all its class names share."""
    classes = [d.name for d in module.definitions.values() if d.kind == "class"]
    configurations = [n.removesuffix("Config") for n in classes if n.endswith("Config") and n != "Config"]
    if len(configurations) == 1:
        return configurations[0]
    names = configurations or classes
    common = os.path.commonprefix(names)
    # A prefix ends where the next word of every name begins.
    while common and any(name[len(common) : len(common) + 1].islower() for name in names):
        common = common[:-1]
    return common if configurations or common not in classes else ""


def _model_type(module: Module, family: Family, part: str, default: str) -> str:
    """The literal `model_type` of a class of a sub-family; "" is what belongs to none."""
    found = _literals(module, "model_type")
    return next((value for name, value in found if family.subfamily(name) == part), default)


def _literals(module: Module, attribute: str) -> list[tuple[str, str]]:
    """The file's classes that give a string to an attribute, with the string."""
    return [
        (definition.name, value.value)
        for definition in module.definitions.values()
        if isinstance(definition.node, ast.ClassDef)
        for node in definition.node.body
        if assigned_names(node) == (attribute,)
        if isinstance(value := getattr(node, "value", None), ast.Constant) and isinstance(value.value, str)
    ]
