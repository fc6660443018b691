"""A class merged with the parents that come from other definitions.

The child's fields and methods replace the parent's in place, new ones follow, and with them methods that the parent only declares;
`name = removed` takes one away. Core classes (but for roles), third-party classes and classes of the same file stay as bases.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from .checks import check_class_level, check_dataclass, check_decorators, check_order, is_dataclass
from .constructor import tidy_constructor
from .diagnostics import CompileError, Diagnostic, at
from .shape import Member, Shape, class_name_edit
from .signature import check_signatures, inherit_signature
from .super_calls import SuperUse, is_abstract, splice, super_uses
from .tables import fold
from .text import Edit, Text

REMOVED = "removed"  # the marker of `unibody.core`: `name = removed`


class Parent(NamedTuple):
    """A base to be merged: as it stands among the child's bases, its name in its own file, its shape in the child's names."""

    base: str
    name: str
    shape: Shape


class Lineage(NamedTuple):
    """What is known of a class that stays a base: the classes above it, the names in their bodies (None: not all are known),
    and the attributes that their methods store.
    """

    bases: set[str]
    names: set[str] | None
    stored: set[str]


def merge(child: Shape, parents: Sequence[Parent], lineage: Callable[[str], Lineage]) -> Shape:
    """The child with its parents merged in, in the C3 order: the first base first, bases that they share last.

    `lineage` says what is known of a class that stays a base.
    """
    removed = _removals(child, parents)
    shape = replace(child, members=tuple(m for m in child.members if not _is_removal(m)))
    own = shape.members
    kept: list[str] = []  # bases that stay, of the parents merged so far
    staying = [base.text for parent in parents for base in parent.shape.bases]
    stored = {name for base in staying for name in lineage(base).stored}
    above = [{n for base in p.shape.bases for n in lineage(base.text).names or ()} for p in parents]
    check_dataclass(shape, [p.shape for p in parents], [p.name for p in parents], above)
    for parent in parents:
        between = [base for base in kept if base not in {b.text for b in parent.shape.bases}]
        shape = _Merge(shape, parent, removed, own, between, stored).run()
        kept += [base.text for base in parent.shape.bases]
    check_order(shape)
    check_signatures(shape)
    shape = replace(_without_unread(shape), bases=_linear(shape.bases, lineage))
    _check_super(child, parents, [lineage(base.text) for base in shape.bases])
    return shape


def _without_unread(shape: Shape) -> Shape:
    """The class without the methods that merging kept for a `super()` that is overridden by now."""
    if not shape.kept:
        return shape
    read = {node.attr for member in shape.members for node in ast.walk(member.node) if isinstance(node, ast.Attribute)}
    members = tuple(m for m in shape.members if m.name not in shape.kept - read)
    return shape if len(members) == len(shape.members) else _without_unread(replace(shape, members=members))


def _check_super(child: Shape, parents: Sequence[Parent], kept: list[Lineage]) -> None:
    """Every `super().x` of the child must be somewhere above it, where everything above it is known."""
    if any(base.names is None for base in kept):
        return
    known = {name for base in kept for name in base.names or ()} | set(dir(object))
    for member in child.members:
        for use in super_uses(member.text):
            if use.method not in known and not any(parent.shape.find(use.method) for parent in parents):
                names = sorted({key for parent in parents for m in parent.shape.members for key in m.names})
                message = f"no parent of `{child.name}` has a `{use.method}`"
                raise CompileError(at(member.text, use.attribute, "UB015", message, f"they have {', '.join(names)}"))


def _removals(child: Shape, parents: Sequence[Parent]) -> set[str]:
    """The names that the child takes away; each must be there."""
    known = {name for parent in parents for member in parent.shape.members for name in member.names}
    found = set()
    for member in child.members:
        if _is_removal(member):
            if member.name not in known:
                raise CompileError(_nothing_to_remove(member, parents))
            found.add(member.name)
    return found


def _is_removal(member: Member) -> bool:
    node = member.node
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == REMOVED


def _nothing_to_remove(member: Member, parents: Sequence[Parent]) -> Diagnostic:
    names = ", ".join(key for parent in parents for m in parent.shape.members for key in m.names)
    owners = " and ".join(f"`{parent.name}`" for parent in parents)
    message = f"{owners} has no `{member.name}` that could be removed"
    return at(member.text, member.node, "UB014", message, f"it has {names}" if names else "it has no members")


def _linear(bases: Sequence[Text], lineage: Callable[[str], Lineage]) -> tuple[Text, ...]:
    """The bases without those that another one inherits from."""
    implied = {name for base in bases for name in lineage(base.text).bases}
    return tuple(base for base in bases if base.text not in implied)


class _Merge:
    """One parent merged into a class; `own` are the members that the class itself writes."""

    def __init__(
        self,
        child: Shape,
        parent: Parent,
        removed: set[str],
        own: tuple[Member, ...],
        between: list[str],
        stored: set[str],
    ) -> None:
        self.child, self.parent, self.name = child, parent.shape, parent.name
        self.base = parent.base
        self.removed, self.own, self.between, self.stored = removed, own, between, stored
        self.kept: dict[str, Member] = {}  # the parent's methods that had to be kept as private ones

    def run(self) -> Shape:
        child, parent = self.child, self.parent
        mine = {key: member for member in child.members for key in member.names}
        members: list[Member] = []
        inherited: list[Member] = []
        is_ordered = not any("kw_only=True" in text.text for text in (*child.decorators, *parent.decorators))
        for member in parent.members:
            override = next((mine[key] for key in member.names if key in mine), None)
            getter, _, accessor = member.name.partition(".")
            if override is not None and (override.kind, member.kind) == ("method", "field"):
                continue  # declared there, written here: it stands with the methods that are new
            if override is not None and is_ordered and _is_parameter(member) is False and _is_parameter(override):
                continue  # the class's there, the dataclass's here: it stands with the parameters that are new
            if override is not None:
                members.append(self._override(override, member))
            elif accessor and getter in mine and not _is_property(mine[getter]):
                continue  # what takes the property's place takes its setter along
            elif not self.removed & {getter, *member.names}:
                members.append(member)
                inherited.append(member)
        check_decorators(child, parent, self.name)
        check_class_level(replace(child, members=self.own), parent, self.name, inherited)
        placed = {key for member in members for key in member.names}
        fresh = [self._fold(m) for m in child.members if not placed & set(m.names)]
        taken = {key for m in (*members, *fresh) for key in m.names}
        done = [m if any(m is i for i in inherited) else self._resolve(m, taken) for m in _insert(members, fresh)]
        return replace(
            child,
            lead=child.lead or parent.lead,
            decorators=(*child.decorators, *self._decorators()),
            bases=self._bases(),
            keywords=(
                *child.keywords,
                *(k for k in parent.keywords if k.text not in {c.text for c in child.keywords}),
            ),
            docstring=child.docstring or parent.docstring,
            members=(*done, *self.kept.values()),
            kept=child.kept | parent.kept | {member.name for member in self.kept.values()},
        )

    def _decorators(self) -> list[Text]:
        """The parent's decorators; a class is made a dataclass once."""
        mine = {d.text for d in self.child.decorators}
        has_dataclass = any(is_dataclass(text) for text in mine)
        return [
            d for d in self.parent.decorators if d.text not in mine and not (has_dataclass and is_dataclass(d.text))
        ]

    def _bases(self) -> tuple[Text, ...]:
        """The child's bases with the merged one replaced by its own, each once."""
        found: dict[str, Text] = {}
        for mine in self.child.bases:
            for text in self.parent.bases if mine.text == self.base else (mine,):
                found.setdefault(text.text, text)
        return tuple(found.values())

    def _fold(self, member: Member) -> Member:
        return fold(member, self.base, self.name, self.parent) if member.kind == "field" else member

    def _override(self, mine: Member, theirs: Member) -> Member:
        """The child's member; a field without annotation takes the parent's, so that a dataclass field stays one."""
        if mine.names != theirs.names and set(theirs.names) - set(mine.names):
            message = f"`{', '.join(theirs.names)}` are assigned together in the parent and only some of them here"
            raise CompileError(at(mine.text, mine.node, "UB013", message, "assign all of them"))
        mine = replace(self._fold(mine), spaced=theirs.spaced)
        node, other = mine.node, theirs.node
        if isinstance(node, ast.Assign) and isinstance(other, ast.AnnAssign) and len(mine.names) == 1:
            start = mine.text.span(node.targets[0])[1]
            annotation = theirs.text.of(other.annotation).text
            return replace(mine, text=mine.text.edit([Edit(start, start, f": {annotation}")]))
        return replace(mine, text=inherit_signature(mine.text, theirs.text)) if mine.kind == "method" else mine

    def _resolve(self, member: Member, taken: set[str]) -> Member:
        """The method with its uses of `super()` that mean this parent replaced."""
        uses = [use for use in super_uses(member.text) if self.parent.find(use.method)]
        if not uses:
            return member
        if self.between:
            message = (
                f"`super().{uses[0].method}` would have to pass `{self.between[0]}` before it reaches `{self.name}`"
            )
            raise CompileError(
                at(
                    member.text,
                    uses[0].attribute,
                    "UB013",
                    message,
                    f"list `{self.name}` first, or write the method out",
                )
            )
        accessor = member.name.partition(".")[2]
        theirs = self.parent.find(member.name)
        if (
            len(uses) == 1
            and uses[0].method == member.name
            and theirs is not None
            and theirs.kind == "method"
            and not accessor
        ):
            text = splice(member.text, uses[0], theirs.text)
            if text is not None:
                tidy = text if uses[0].nested else tidy_constructor(text, member.text, uses[0], self.stored)
                return replace(member, text=tidy)
        return self._keep_private(member, uses, taken)

    def _keep_private(self, member: Member, uses: list[SuperUse], taken: set[str]) -> Member:
        """`self._<parent>_<method>` for each use; the parent's method is kept under that name."""
        own = member.node
        assert isinstance(own, (ast.FunctionDef, ast.AsyncFunctionDef))
        is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in own.decorator_list)
        if is_static or not (own.args.args or own.args.posonlyargs):
            message = "`super()` in a method without a first parameter"
            raise CompileError(at(member.text, own, "UB013", message, "name the instance or class as first parameter"))
        receiver = (*own.args.posonlyargs, *own.args.args)[0].arg
        edits = []
        for use in uses:
            if use.method not in self.kept:
                self.kept[use.method] = self._private(use, member, taken)
            start, end = member.text.span(use.attribute)
            edits.append(Edit(start, end, f"{receiver}.{self.kept[use.method].name}"))
        return replace(member, text=member.text.edit(edits))

    def _private(self, use: SuperUse, member: Member, taken: set[str]) -> Member:
        theirs = self.parent.find(use.method)
        assert theirs is not None
        name = "_" + _snake(self.name) + "_" + use.method.strip("_")
        while name in taken:
            name += "_"
        taken.add(name)
        node = theirs.node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            edits = [class_name_edit(theirs.text, node, name)]
            edits += [
                Edit(theirs.text.start(d.lineno), theirs.text.start((d.end_lineno or 0) + 1), "")
                for d in node.decorator_list
                if is_abstract(d)
            ]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and len(theirs.names) == 1 and use.call is None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            edits = [Edit(*theirs.text.span(target), name)]
        else:
            message = f"`super().{use.method}`: `{use.method}` of `{self.name}` is neither a method nor a plain field"
            raise CompileError(at(member.text, use.attribute, "UB015", message, "name it through `self`"))
        return Member(theirs.kind, (name,), theirs.text.edit(edits))


def _is_property(member: Member) -> bool:
    """Whether a member is the getter of a property."""
    decorators = getattr(member.node, "decorator_list", [])
    return any(ast.unparse(d).rpartition(".")[2] in ("property", "cached_property") for d in decorators)


def _is_parameter(member: Member) -> bool | None:
    """Whether an annotated member is one of a dataclass's parameters; None: it is not annotated."""
    if not isinstance(member.node, ast.AnnAssign):
        return None
    return "ClassVar" not in ast.unparse(member.node.annotation)


def _insert(members: list[Member], fresh: list[Member]) -> list[Member]:
    """New fields after the last field, new methods at the end, `__init__` before all other methods."""
    fields = [m for m in fresh if m.kind == "field"]
    first = [m for m in fresh if m.name == "__init__"]
    methods = [m for m in fresh if m.kind == "method" and m.name != "__init__"]
    last = max((i + 1 for i, m in enumerate(members) if m.kind == "field"), default=0)
    start = next((i for i, m in enumerate(members) if m.kind == "method" and i >= last), len(members))
    return [*members[:last], *fields, *members[last:start], *first, *members[start:], *methods]


def _snake(name: str) -> str:
    """`LlamaRMSNorm` -> `llama_rms_norm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
