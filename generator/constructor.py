"""What splicing leaves behind in a constructor: modules built and then thrown away, and a `post_init` too many."""

from __future__ import annotations

import ast

from .scopes import bound_names
from .super_calls import SuperUse
from .text import Text

FINISHER = "post_init"  # `self.post_init()` ends a constructor; of several only the last counts


def tidy_constructor(spliced: Text, child: Text, use: SuperUse, stored_above: set[str]) -> Text:
    """`spliced` without the parent's attributes that the child overwrites or deletes before anything reads them.

    What bases that stay are known to store (`stored_above`) is deleted for good only by the `del` itself.

    The child's assignment moves to the place of the parent's, where that cannot change what it says: Python, too, keeps an
    overwritten module in its place among the others.
    """
    node, before = spliced.tree.body[0], child.tree.body[0]
    if not isinstance(node, ast.FunctionDef) or node.name != "__init__":
        return spliced
    assert isinstance(before, ast.FunctionDef)
    receiver = node.args.args[0].arg
    first_own = len(node.body) - (len(before.body) - use.index - 1)  # the child's statements after the call
    own = range(first_own, len(node.body))
    replaced: dict[int, int | None] = {}  # a statement -> the one that takes its place
    if any(_is_finisher(node.body[index], receiver) for index in own):
        replaced = {index: None for index in range(first_own) if _is_finisher(node.body[index], receiver)}
    for index, statement in enumerate(node.body[:first_own]):
        name = _stored(statement, receiver)
        if name is not None:
            replaced |= _overwritten(node, index, name, receiver, own, replaced, name in stored_above)
    return _rewrite(spliced, node, replaced)


def _overwritten(
    node: ast.FunctionDef,
    index: int,
    name: str,
    receiver: str,
    own: range,
    replaced: dict[int, int | None],
    above: bool,
) -> dict[int, int | None]:
    """What becomes of the statement that stores `name` first, and of the one that overwrites or deletes it."""
    for later in range(index + 1, len(node.body)):
        statement = node.body[later]
        if later in replaced:
            continue
        if later in own and _deletes(statement, receiver, name):
            others = [s for i, s in enumerate(node.body[:later]) if i != index and i not in replaced]
            return {} if above or any(_may_store(s, receiver, name) for s in others) else {index: None, later: None}
        if _reads(statement, receiver, name) or _may_delete(statement, receiver, name):
            return {}
        if _stored(statement, receiver) == name:
            movable = later in own and _is_movable(node, index, later, receiver)
            return {index: later, later: None} if movable else {index: None}
    return {}


def _is_movable(node: ast.FunctionDef, index: int, later: int, receiver: str) -> bool:
    """Whether a statement reads nothing that the statements between the two places bind or store."""
    statement = node.body[later]
    bound = bound_names(node.body[index:later])
    stored = {n.attr for s in node.body[index:later] for n in ast.walk(s) if isinstance(n, ast.Attribute)}
    for child in ast.walk(statement):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and child.id in bound:
            return False
        match child:
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute, ctx=ast.Load()):
                if owner == receiver and attribute in stored:
                    return False
    return True


def _rewrite(text: Text, node: ast.FunctionDef, replaced: dict[int, int | None]) -> Text:
    """The text with some statements of the function's body, and the comments directly above them, left out or replaced."""
    spans = {
        index: _lines(text, node, index) for index in {*replaced, *(i for i in replaced.values() if i is not None)}
    }
    order: list[int] = []
    line = 1
    for index in sorted(replaced):
        start, end = spans[index]
        order += range(line, start)
        successor = replaced[index]
        if successor is not None:
            order += range(spans[successor][0], spans[successor][1] + 1)
        line = end + 1
    order += range(line, len(text.origins) + 1)
    rows = text.text.split("\n")
    return Text("\n".join(rows[n - 1] for n in order), tuple(text.origins[n - 1] for n in order))


def _lines(text: Text, node: ast.FunctionDef, index: int) -> tuple[int, int]:
    """The first and last line of a statement, the comments directly above it included."""
    rows = text.text.split("\n")
    statement = node.body[index]
    start = statement.lineno
    floor = (node.body[index - 1].end_lineno or 0) if index else node.lineno
    while start - 1 > floor and rows[start - 2].lstrip().startswith("#"):
        start -= 1
    return start, statement.end_lineno or start


def _stored(statement: ast.stmt, receiver: str) -> str | None:
    """`x` of a statement `self.x = …`."""
    target = None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == receiver:
        return target.attr
    return None


def _deletes(statement: ast.stmt, receiver: str, name: str) -> bool:
    match statement:
        case ast.Delete(targets=[ast.Attribute(value=ast.Name(id=owner), attr=attribute)]):
            return owner == receiver and attribute == name
    return False


def _may_delete(statement: ast.stmt, receiver: str, name: str) -> bool:
    """Whether there is a `del self.name` anywhere in a statement."""
    return any(_deletes(node, receiver, name) for node in ast.walk(statement) if isinstance(node, ast.stmt))


def _may_store(statement: ast.stmt, receiver: str, name: str) -> bool:
    """Whether a statement stores `self.name`, or calls a method of `self`, which may."""
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute, ctx=ast.Store()):
                if owner == receiver and attribute == name:
                    return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner))):
                if owner == receiver:
                    return True
    return False


def _is_finisher(statement: ast.stmt, receiver: str) -> bool:
    match statement:
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=attribute), args=[], keywords=[])
        ):
            return owner == receiver and attribute == FINISHER
    return False


def _reads(statement: ast.stmt, receiver: str, name: str) -> bool:
    """Whether a statement may read `self.name`: names it, or hands `self` itself on (a method call does)."""
    plain = {id(n.value) for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
    calls = {id(n.func) for n in ast.walk(statement) if isinstance(n, ast.Call)}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == receiver:
            if id(node) in calls or (node.attr == name and isinstance(node.ctx, ast.Load)):
                return True
        elif isinstance(node, ast.Name) and node.id == receiver and id(node) not in plain:
            return True
    return False
