"""Stage 5: the family of a definition: its own members with their parents merged in, and derived copies of the others."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import partial

from .checks import check_parent_references
from .diagnostics import CompileError, Diagnostic
from .graph import Binding, Internal, placed
from .import_statements import same_imports
from .linear import check_linear
from .merge import REMOVED, Lineage, Parent, merge
from .parse import Definition
from .shape import Shape, read_class
from .substitution import substitute
from .unit import Branch, Unit


def flatten(unit: Unit) -> None:
    """Fill the family's members, in reading order, and what the names mean that they import."""
    own: dict[str, Definition] = {}
    unit.family.origins = {
        unit.roles[branch][name]: Internal(branch.parent, name)
        for branch, members in unit.inherited.items()
        for name in members
    }
    derived = [
        {unit.roles[branch][name]: definition for name, definition in members.items()}
        for branch, members in unit.inherited.items()
    ]
    unit.family.kept = {
        name: unit.families[origin.path].kept.get(origin.name, frozenset())
        for name, origin in unit.family.origins.items()
    }
    known = {name: d for members in reversed(derived) for name, d in members.items()}
    for name, definition in unit.module.definitions.items():
        local = _local_names(unit, unit.family.subfamily(name))
        own[name] = known[name] = substitute(definition, local, None)
        if definition.kind == "class":
            shape = read_class(own[name])
            parents = [
                Parent(local.get(base, base), internal.name, _shape(unit, internal, unit.family.subfamily(name)))
                for base, internal in unit.bases[name].items()
            ]
            if parents:
                check_parent_references(definition, list(unit.bases[name]))
                check_linear(unit, definition)
                whole = merge(shape, parents, partial(lineage, unit, known))
                own[name] = known[name] = whole.definition()
                unit.family.kept[name] = whole.kept
    unit.family.definitions = _reading_order(own, derived)
    unit.family.conflicts = _conflicts(unit, own)
    unit.family.split = _split(derived, own)
    unit.family.bindings = _bindings(unit, _local_names(unit, ""))


def _shape(unit: Unit, base: Internal, subfamily: str) -> Shape:
    """A parent's class in the child's names; in its own where several of the child's classes inherit from it."""
    family = unit.families[base.path]
    renamed = unit.inherited[Branch(base.path, subfamily)].get(base.name)
    kept = family.kept.get(base.name, frozenset())
    return replace(read_class(renamed or family.definitions[base.name]), kept=kept)


def _local_names(unit: Unit, subfamily: str) -> dict[str, str]:
    """What the names that a definition imports from other modules of ours are called in (a sub-family of) its output."""
    names = {}
    for name, binding in unit.graph.bindings[unit.source.path].items():
        if isinstance(binding, Internal):
            branches = [b for b in unit.roles if b.parent == binding.path]
            near = (
                [b for b in branches if b.subfamily == subfamily]
                or [b for b in branches if not b.subfamily]
                or branches
            )
            meant = list(dict.fromkeys(unit.roles[branch].get(binding.name, binding.name) for branch in near))
            if len(meant) > 1:
                unit.family.ambiguous[binding.name] = meant
            names[name] = meant[0] if len(meant) == 1 else binding.name
    return names


def lineage(unit: Unit, known: dict[str, Definition], name: str) -> Lineage:
    """What a class inherits from and has, as far as our own files tell."""
    bases: set[str] = set()
    names: set[str] = set(dir(object))
    stored: set[str] = set()
    complete = True
    pending = [(known, unit.graph.bindings[unit.source.path], name)]
    while pending:
        definitions, bindings, current = pending.pop()
        binding = bindings.get(current)
        if current not in definitions and isinstance(binding, Internal):
            definitions, bindings = unit.graph.modules[binding.path].definitions, unit.graph.bindings[binding.path]
            current = binding.name
        definition = definitions.get(current)
        if definition is None or definition.kind != "class":
            complete = False
            continue
        shape = read_class(definition)
        names |= {key for member in shape.members for key in member.names}
        stores = (
            n for n in ast.walk(definition.node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
        )
        stored |= {node.attr for node in stores}
        for base in shape.bases:
            if base.text not in bases:
                bases.add(base.text)
                pending.append((definitions, bindings, base.text))
    return Lineage(bases, names if complete else None, stored)


def _split(derived: list[dict[str, Definition]], own: dict[str, Definition]) -> dict[str, str]:
    """Names that a parent assigns in one statement (`A, B = 1, 2`) with a name that the child defines itself."""
    found: dict[str, str] = {}
    for members in derived:
        for definition in members.values():
            overridden = [name for name in definition.names if name in own]
            if overridden:
                found |= {name: overridden[0] for name in definition.names if name not in own}
    return found


def _conflicts(unit: Unit, own: dict[str, Definition]) -> dict[str, list[str]]:
    """Names that different members of several parents land on, and that no class of the child's decides."""
    texts: dict[str, dict[str, str]] = {}
    for branch, members in unit.inherited.items():
        for name, definition in members.items():
            texts.setdefault(unit.roles[branch][name], {}).setdefault(
                definition.text.text, f"`{name}` of `{branch.parent}`"
            )
    return {name: list(found.values()) for name, found in texts.items() if len(found) > 1 and name not in own}


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
    parents = dict.fromkeys(branch.parent for branch in unit.inherited)
    for name, binding in unit.graph.bindings[unit.source.path].items():
        if not isinstance(binding, Internal):
            found[name] = binding
        elif binding.path not in parents:
            found[local[name]] = binding
    for parent in parents:
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
    return same_imports(one, other)
