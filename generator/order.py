"""Stage 7: the order of an output for its reader: configuration, leaves, block, model, heads, then the plumbing.

Python needs bases, decorators, defaults and class-level values before their use; everything else is free.
"""

from __future__ import annotations

from .diagnostics import CompileError, Diagnostic, at
from .scopes import executed_names
from .unit import ENTRY, Part, Unit


def order(unit: Unit) -> None:
    """Put the parts in order: embedded families, then the family in its own order, each after what it needs at once, core files last."""
    spaces = dict.fromkeys(p.space for p in unit.parts.values() if p.space not in unit.graph.core)
    placed: dict[str, Part] = {}
    for space in sorted(spaces, key=lambda space: space == unit.source.path):
        for name in unit.families[space].members:
            if name != ENTRY and name in unit.parts and unit.parts[name].space == space:
                _place(name, unit, placed)
    leaves = [p for p in placed.values() if p.space not in unit.graph.core]
    bases = [p for p in placed.values() if p.space in unit.graph.core]
    entry = [unit.parts[ENTRY]] if ENTRY in unit.parts else []
    for space in _files(unit, [*leaves, *bases, *entry]):
        for name in unit.graph.modules[space].definitions:
            if name in unit.parts:
                _place(name, unit, placed)
    for part in entry:
        _place(part.definition.name, unit, placed)
    assert {p.definition.name for p in unit.parts.values()} == placed.keys(), "a part was left out"
    unit.ordered = list(placed.values())


def _place(
    name: str, unit: Unit, placed: dict[str, Part], waiting: tuple[str, ...] = (), around: frozenset[str] = frozenset()
) -> None:
    """Append a part, and before it what Python reads when it executes the part, and what functions called then read.

    `waiting` need this part one by one; `around` wait, too, but only for what a function may read.
    """
    part = unit.parts[name]
    if part.definition.name in placed or part.definition.name in around:
        return
    waiting = (*waiting, part.definition.name)
    for needed in part.definition.needs:
        if needed in unit.parts and unit.parts[needed].definition.name in waiting:
            raise CompileError(_circle(part, needed, waiting))
        if needed in unit.parts:
            _place(needed, unit, placed, waiting, around)
    running = [called for called in part.definition.calls if called in unit.parts]
    seen = {name}
    while running:
        called = running.pop()
        if called not in seen:
            seen.add(called)
            inner = [use.id for use in unit.parts[called].definition.uses if use.id in unit.parts]
            running += inner
            for needed in inner:
                if unit.parts[needed] is not part and needed not in seen:
                    _place(needed, unit, placed, around=around | set(waiting))
    placed.setdefault(part.definition.name, part)


def _circle(part: Part, needed: str, waiting: tuple[str, ...]) -> Diagnostic:
    place = next(use for use in executed_names(part.definition.node) if use.id == needed)
    message = f"`{needed}` is read before it is defined: {' -> '.join((*waiting, needed))}"
    return at(part.definition.text, place, "UB013", message, "read it in a method, or name something else")


def _files(unit: Unit, parts: list[Part]) -> list[str]:
    """The core files that the parts use, in the order of first use, followed through each other."""
    files: dict[str, None] = {}
    pending = list(parts)
    seen = set(map(id, pending))
    while pending:
        part = pending.pop(0)
        for use in part.definition.uses:
            used = unit.parts.get(use.id)
            if used is not None and id(used) not in seen:
                seen.add(id(used))
                if used.space in unit.graph.core:
                    files.setdefault(used.space)
                pending.append(used)
    return list(files)
