"""Stage 6b: core's roles. A core class marked `@role` and the only class of an output that inherits from it become one.

What the role declares and the class overrides is not said twice, and whatever names the role means the class. A role that
several classes inherit from stays their base.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import replace
from functools import partial

from .flatten import lineage
from .follow import root_names
from .graph import Graph
from .merge import Parent, merge
from .parse import Definition
from .scopes import global_names
from .shape import Member, read_class
from .substitution import substitute
from .super_calls import documented
from .text import Edit
from .unit import Part, Unit

MARK = "role"  # the decorator of `unibody.core`


def read_roles(graph: Graph) -> None:
    """Note which classes of core are roles, and take the mark away."""
    for path in graph.core & graph.modules.keys():
        definitions = {name: _unmarked(entry) for name, entry in graph.modules[path].definitions.items()}
        graph.modules[path] = replace(graph.modules[path], definitions=definitions)


def fill_roles(unit: Unit) -> None:
    """Merge each role with the class that fills it, until all that are left have several."""
    while (found := _filled(unit)) is not None:
        name, filler = found
        role, part = unit.parts.pop(name).definition, unit.parts[filler]
        known = {other: entry.definition for other, entry in unit.parts.items()}
        parent, child = Parent(name, name, read_class(role)), read_class(part.definition)
        members = tuple(_documented(member, parent.shape.find(member.name)) for member in child.members)
        whole = merge(replace(child, members=members), [parent], partial(lineage, unit, known)).definition()
        unit.filled[filler] = [*unit.filled.get(filler, ()), role, *unit.filled.pop(name, ())]
        mentions = (*part.definition.mentions, *role.mentions)
        unit.parts[filler] = Part(part.space, replace(part.definition, text=whole.text, mentions=mentions))
        for other, entry in unit.parts.items():
            unit.parts[other] = replace(entry, definition=substitute(entry.definition, {name: filler}, None))
    if unit.filled:
        _prune(unit)


def _filled(unit: Unit) -> tuple[str, str] | None:
    """A role and the only class that inherits from it. One with other bases fills none: its `super()` may mean those."""
    heirs: dict[str, list[str | None]] = defaultdict(list)
    for name, part in unit.parts.items():
        bases = [ast.unparse(base) for base in getattr(part.definition.node, "bases", ())]
        for base in bases:
            heirs[base].append(name if len(bases) == 1 else None)
    for name, part in unit.parts.items():
        if part.definition.is_role and len(heirs[name]) == 1 and (filler := heirs[name][0]):
            return name, filler
    return None


def _prune(unit: Unit) -> None:
    """Leave out what only the members needed that are overridden."""
    reached: set[str] = set()
    pending = root_names(unit.family)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += [use.id for use in unit.parts[name].definition.uses] if name in unit.parts else []
    unit.parts = {name: part for name, part in unit.parts.items() if reached & set(part.definition.names)}
    around = [entry.block or entry.guard for name in reached for entry in unit.imports.get(name, ())]
    reached |= {use.id for text in around if text for use in global_names(ast.parse(text))}
    unit.imports = {name: entries for name, entries in unit.imports.items() if name in reached}


def _documented(member: Member, theirs: Member | None) -> Member:
    """The filler's method with the role's docstring where it has none, as Python's own help has it."""
    if theirs is None or member.kind != "method" or theirs.kind != "method":
        return member
    return replace(member, text=documented(member.text, theirs.text))


def _unmarked(definition: Definition) -> Definition:
    for mark in getattr(definition.node, "decorator_list", ()):
        if isinstance(mark, ast.Name) and mark.id == MARK:
            text = definition.text
            edit = Edit(text.start(mark.lineno), text.start(mark.lineno + 1), "")
            return replace(definition, text=text.edit([edit]), is_role=True)
    return definition
