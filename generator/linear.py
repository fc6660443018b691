"""Python's order of the classes above a class (C3), and whether merging keeps what it means.

Merging puts what comes from other definitions into the class itself, before the bases that stay. With one base that is the order
that Python has. With several, a base that stays may stand before one that is merged, or two of them may share an ancestor.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from itertools import takewhile

from .diagnostics import CompileError, at
from .graph import Internal
from .parse import Definition
from .shape import Member, read_class
from .super_calls import super_uses
from .unit import Unit

Class = Internal | str  # one of ours, or the name of one that is not


def check_linear(unit: Unit, definition: Definition) -> None:
    """Refuse a class that would take a member from another base than in Python, or whose bases Python refuses."""
    if len(getattr(definition.node, "bases", ())) > 1 and unit.bases[definition.name]:
        _Lines(unit, definition).check()


class _Lines:
    """The classes above one class in Python's order and in that of merging."""

    def __init__(self, unit: Unit, definition: Definition) -> None:
        self.unit, self.definition = unit, definition
        self.members = cache(self._members)
        self.bases = cache(self._bases)

    def check(self) -> None:
        start = Internal(self.unit.source.path, self.definition.name)
        python = self._order(start)
        merged, staying = self._merged(start)
        ours = [*merged, *(found for found in self._join(staying) if found not in merged)]
        for early in takewhile(lambda base: base not in merged, self.bases(start)):
            if isinstance(early, str):
                message = f"`{early}` stands before merged classes, and which of their members it has is not known"
                raise self._refused(message, f"list `{early}` after them")
        pending: list[tuple[str, Class | None]] = [(name, None) for c in python for name in self.members(c)]
        for name, below in pending:  # a member, and the class whose `super()` asks for it
            theirs, mine = (self._provider(order, name, below) for order in (python, ours))
            if theirs != mine:
                asked = f"`super().{name}` of `{_told(below)}`" if below else f"`{name}`"
                message = f"{asked} is that of `{_told(theirs)}` in Python, and would be that of `{_told(mine)}` here"
                remedy = f"write `{name}` out in `{self.definition.name}`, or change the order of its bases"
                raise self._refused(message, remedy)
            uses = super_uses(self.members(theirs)[name].text) if theirs else []
            pending += [ask for use in uses if (ask := (use.method, theirs)) not in pending]

    def _refused(self, message: str, remedy: str) -> CompileError:
        node = self.definition.node
        assert isinstance(node, ast.ClassDef)
        return CompileError(at(self.definition.text, node.bases[0], "UB013", message, remedy))

    def _provider(self, order: list[Class], name: str, below: Class | None) -> Class | None:
        above = order[order.index(below) + 1 :] if below else order
        return next((found for found in above if name in self.members(found)), None)

    def _order(self, found: Class) -> list[Class]:
        return [found, *self._join(self.bases(found))]

    def _join(self, bases: Sequence[Class]) -> list[Class]:
        """The order of classes with these bases, as C3 has it."""
        lines = [*map(self._order, bases), [*bases]]
        joined: list[Class] = []
        while lines := [line for line in lines if line]:
            heads = (line[0] for line in lines if not any(line[0] in other[1:] for other in lines))
            head = next(heads, None)
            if head is None:
                names = " and ".join(f"`{_told(base)}`" for base in bases)
                raise self._refused(f"Python has no order for the bases {names}", "list a subclass before its base")
            joined.append(head)
            lines = [[c for c in line if c != head] for line in lines]
        return joined

    def _merged(self, found: Class) -> tuple[list[Class], list[Class]]:
        """The classes that become one with this one, in the order in which their members count, and the bases that stay."""
        merged, staying = [found], []
        for base in self.bases(found):
            path = base.path if isinstance(base, Internal) else ""
            is_merged = path in self.unit.families and path != (found.path if isinstance(found, Internal) else "")
            more, left = self._merged(base) if is_merged else ([], [base])
            merged += [c for c in more if c not in merged]
            staying += [c for c in left if c not in staying]
        return merged, staying

    def _members(self, found: Class) -> dict[str, Member]:
        """What the class itself gives its instances, by name; not what it only declares."""
        definition = self._written(found)
        members = read_class(definition).members if definition else ()
        return {name: m for m in members for name in m.names if getattr(m.node, "value", m) is not None}

    def _bases(self, found: Class) -> list[Class]:
        if isinstance(found, str):
            return []
        definition = self._written(found)
        if definition is None:  # a derived copy
            family = self.unit.families.get(found.path)
            origin = family.origins.get(found.name) if family else None
            return [origin] if origin else []
        bindings = self.unit.graph.bindings[found.path]
        known = self.unit.graph.modules[found.path].definitions
        names = [ast.unparse(base) for base in getattr(definition.node, "bases", ())]
        meant = [bindings.get(name, Internal(found.path, name) if name in known else name) for name in names]
        return [base if isinstance(base, Internal) else name for base, name in zip(meant, names, strict=True)]

    def _written(self, found: Class) -> Definition | None:
        definitions = self.unit.graph.modules[found.path].definitions if isinstance(found, Internal) else {}
        definition = definitions.get(found.name) if isinstance(found, Internal) else None
        return definition if definition and definition.kind == "class" else None


def _told(found: Class | None) -> str:
    return "object" if found is None else found if isinstance(found, str) else found.name
