"""A class merged with the parents that come from other definitions.

The child's fields and methods replace the parent's in place, new ones follow; `name = removed` takes one away. Core classes,
third-party classes and classes of the same file stay as bases.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from .constructor import tidy_constructor
from .diagnostics import CompileError, Diagnostic, at
from .shape import Member, Shape, class_name_edit
from .super_calls import SuperCall, splice, super_calls
from .text import Edit, Text

REMOVED = "removed"  # the marker of `unibody.core`: `name = removed`


class Parent(NamedTuple):
    """A base to be merged: as it stands among the child's bases, its name in its own file, its shape in the child's names."""

    base: str
    name: str
    shape: Shape


def merge(child: Shape, parents: Sequence[Parent]) -> Shape:
    """The child with its parents merged in, the first base first."""
    shape = child
    for parent in parents:
        shape = _merge_one(shape, parent.base, parent.name, parent.shape)
    return shape


def _merge_one(child: Shape, base: str, name: str, parent: Shape) -> Shape:
    members: list[Member] = []
    private: list[Member] = []
    own = {key: member for member in child.members for key in member.names}
    for member in parent.members:
        mine = next((own[key] for key in member.names if key in own), None)
        if mine is None:
            members.append(member)
        elif not _is_removal(mine):
            members.append(_override(mine, member))
            if mine.names != member.names and any(key not in own for key in member.names):
                message = f"`{', '.join(member.names)}` are assigned together in the parent and only some of them here"
                raise CompileError(at(mine.text, mine.node, "UB013", message, "assign all of them"))
    inherited = {key for member in parent.members for key in member.names}
    fresh = [m for m in child.members if not any(key in inherited for key in m.names)]
    for member in fresh:
        if _is_removal(member):
            raise CompileError(_nothing_to_remove(member, name, parent))
    members = _insert(members, fresh)
    done = []
    for member in members:
        if member.kind == "method" and any(member.text is m.text for m in child.members):
            member, kept = _resolve_super(member, parent, {n for m in (*members, *private) for n in m.names}, name)
            private += kept
        done.append(member)
    return replace(
        child,
        lead=child.lead or parent.lead,
        decorators=(
            *child.decorators,
            *(d for d in parent.decorators if d.text not in {c.text for c in child.decorators}),
        ),
        bases=_bases(child, base, parent),
        keywords=(*child.keywords, *(k for k in parent.keywords if k.text not in {c.text for c in child.keywords})),
        docstring=child.docstring or parent.docstring,
        members=(*done, *private),
    )


def _override(mine: Member, theirs: Member) -> Member:
    """A field without annotation takes the parent's: a dataclass field stays one."""
    node, other = mine.node, theirs.node
    if not (isinstance(node, ast.Assign) and isinstance(other, ast.AnnAssign)) or len(mine.names) > 1:
        return mine
    start = mine.text.span(node.targets[0])[1]
    return replace(mine, text=mine.text.edit([Edit(start, start, f": {theirs.text.of(other.annotation).text}")]))


def _is_removal(member: Member) -> bool:
    node = member.node
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == REMOVED


def _nothing_to_remove(member: Member, name: str, parent: Shape) -> Diagnostic:
    names = ", ".join(key for m in parent.members for key in m.names)
    message = f"`{name}` has no `{member.name}` that could be removed"
    return at(member.text, member.node, "UB014", message, f"it has {names}" if names else "it has no members")


def _insert(members: list[Member], fresh: list[Member]) -> list[Member]:
    """New fields after the last field, new methods at the end, `__init__` before all other methods."""
    fields = [m for m in fresh if m.kind == "field"]
    first = [m for m in fresh if m.name == "__init__"]
    methods = [m for m in fresh if m.kind == "method" and m.name != "__init__"]
    last = max((i + 1 for i, m in enumerate(members) if m.kind == "field"), default=0)
    start = next((i for i, m in enumerate(members) if m.kind == "method" and i >= last), len(members))
    return [*members[:last], *fields, *members[last:start], *first, *members[start:], *methods]


def _bases(child: Shape, base: str, parent: Shape) -> tuple[Text, ...]:
    """The child's bases with the merged one replaced by its own, each once."""
    found: dict[str, Text] = {}
    for mine in child.bases:
        for text in parent.bases if mine.text == base else (mine,):
            found.setdefault(text.text, text)
    return tuple(found.values())


def _resolve_super(member: Member, parent: Shape, taken: set[str], owner: str) -> tuple[Member, list[Member]]:
    """The method with its super calls to merged methods replaced, and the parent's methods that had to be kept for it."""
    calls = [c for c in super_calls(member.text) if parent.find(c.method)]
    if not calls:
        return member, []
    accessor = member.name.rpartition(".")[0]
    if accessor:
        message = f"`super()` in the setter of `{accessor}`"
        raise CompileError(at(member.text, member.node, "UB013", message, "write the setter out"))
    if len(calls) == 1 and calls[0].method == member.name:
        theirs = parent.find(member.name)
        assert theirs is not None
        text = splice(member.text, calls[0], theirs.text) if theirs.kind == "method" else None
        if text is not None:
            return replace(member, text=tidy_constructor(text, member.text, calls[0])), []
    return _keep_private(member, calls, parent, taken, owner)


def _keep_private(
    member: Member, calls: list[SuperCall], parent: Shape, taken: set[str], owner: str
) -> tuple[Member, list[Member]]:
    """Calls of `self._<parent>_<method>(…)`, and those methods."""
    kept: dict[str, Member] = {}
    edits = []
    for call in calls:
        theirs = parent.find(call.method)
        assert theirs is not None
        name = "_" + _snake(owner) + "_" + call.method.strip("_")
        while name in taken:
            name += "_"
        node = theirs.node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            message = f"`{call.method}` of `{owner}` is not a method"
            raise CompileError(at(member.text, call.call, "UB015", message, "name it through `self`"))
        renamed = theirs.text.edit([class_name_edit(theirs.text, node, name)])
        kept[call.method] = Member("method", (name,), renamed)
        own = member.node
        assert isinstance(own, (ast.FunctionDef, ast.AsyncFunctionDef))
        receiver = own.args.args[0].arg if own.args.args else "self"
        start, end = member.text.span(call.call.func)
        edits.append(Edit(start, end, f"{receiver}.{name}"))
    return replace(member, text=member.text.edit(edits)), list(kept.values())


def _snake(name: str) -> str:
    return "".join(_pieces(name))


def _pieces(name: str) -> Iterator[str]:
    for index, character in enumerate(name):
        if character.isupper() and index and not name[index - 1].isupper():
            yield "_"
        yield character.lower()
