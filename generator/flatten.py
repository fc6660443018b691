"""Stage 5: the family of a definition: its own members with their parents merged in, and derived copies of the others."""

from __future__ import annotations

from .diagnostics import CompileError, Diagnostic
from .graph import Binding, Internal, placed
from .merge import REMOVED, Parent, merge
from .parse import Definition
from .shape import Shape, read_class
from .substitution import substitute
from .unit import Unit


def flatten(unit: Unit) -> None:
    """Fill the family's members, in reading order, and what the names mean that they import."""
    local = _local_names(unit)
    own: dict[str, Definition] = {}
    for name, definition in unit.module.definitions.items():
        own[name] = substitute(definition, local, None)
        if definition.kind == "class":
            shape = read_class(own[name])
            parents = [
                Parent(local.get(base, base), internal.name, _shape(unit, internal))
                for base, internal in unit.bases[name].items()
            ]
            if parents:
                own[name] = merge(shape, parents).definition()
    derived = [
        {unit.roles[parent][name]: definition for name, definition in members.items()}
        for parent, members in unit.inherited.items()
    ]
    unit.family.definitions = _reading_order(own, derived)
    unit.family.bindings = _bindings(unit, local)


def _shape(unit: Unit, base: Internal) -> Shape:
    """A parent's class in the child's names; in its own where several of the child's classes inherit from it."""
    renamed = unit.inherited[base.path].get(base.name)
    return read_class(renamed or unit.families[base.path].definitions[base.name])


def _local_names(unit: Unit) -> dict[str, str]:
    """What the names that a definition imports from other modules of ours are called in its output."""
    return {
        name: unit.roles.get(binding.path, {}).get(binding.name, binding.name)
        for name, binding in unit.graph.bindings[unit.source.path].items()
        if isinstance(binding, Internal)
    }


def _reading_order(own: dict[str, Definition], inherited: list[dict[str, Definition]]) -> dict[str, Definition]:
    """The parents' order with the child's members in their roles' places, a new one before the next that has a place."""
    order = list(dict.fromkeys(name for members in inherited for name in members))
    names = list(own)
    for index in reversed(range(len(names))):
        if names[index] not in order:
            following = next((name for name in names[index + 1 :] if name in order), None)
            order.insert(order.index(following) if following else len(order), names[index])
    derived = {name: d for members in reversed(inherited) for name, d in members.items()}
    return {name: own.get(name) or derived[name] for name in order}


def _bindings(unit: Unit, local: dict[str, str]) -> dict[str, Binding]:
    """What imported names mean in the child's namespace, the parents' imports included."""
    found: dict[str, Binding] = {}
    for name, binding in unit.graph.bindings[unit.source.path].items():
        if not isinstance(binding, Internal):
            found[name] = binding
        elif binding.path not in unit.inherited:
            found[local[name]] = binding
    for parent in unit.inherited:
        for name, binding in unit.families[parent].bindings.items():
            mine = found.get(name)
            if mine is not None and not _same(mine, binding):
                raise CompileError(_collision(unit, name, parent))
            if mine is None or (isinstance(mine, tuple) and mine[0].guard):
                found[name] = binding
    found.pop(REMOVED, None)
    return found


def _collision(unit: Unit, name: str, parent: str) -> Diagnostic:
    message = f"`{name}` is one thing in this file and another in its parent `{parent}`"
    entries = unit.module.imports.get(name)
    assert entries, "only an import of the child's own can differ"
    return placed(entries[0], "UB011", message, "import it under another name, or the same thing")


def _same(one: Binding, other: Binding) -> bool:
    if isinstance(one, Internal) or isinstance(other, Internal):
        return one == other
    return {(i.module, i.attribute) for i in one} == {(i.module, i.attribute) for i in other}
