"""What splicing leaves behind in a constructor: modules built and then thrown away, and a `post_init` too many."""

from __future__ import annotations

import ast

from .super_calls import SuperUse
from .text import Text

FINISHER = "post_init"  # `self.post_init()` ends a constructor; of several only the last counts


def tidy_constructor(spliced: Text, child: Text, use: SuperUse) -> Text:
    """`spliced` without the parent's attributes that the child overwrites or deletes before anything reads them."""
    node, before = spliced.tree.body[0], child.tree.body[0]
    if not isinstance(node, ast.FunctionDef) or node.name != "__init__":
        return spliced
    assert isinstance(before, ast.FunctionDef)
    receiver = node.args.args[0].arg
    first_own = len(node.body) - (len(before.body) - use.index - 1)  # the child's statements after the call
    doomed: set[int] = set()
    for index, statement in enumerate(node.body[:first_own]):
        if _is_finisher(statement, receiver) and any(_is_finisher(s, receiver) for s in node.body[first_own:]):
            doomed.add(index)
    for index, statement in enumerate(node.body[:first_own]):
        name = _stored(statement, receiver)
        if name is None:
            continue
        for later in range(index + 1, len(node.body)):
            if later in doomed:
                continue
            if later >= first_own and _deletes(node.body[later], receiver, name):
                doomed |= {index, later}
                break
            if _reads(node.body[later], receiver, name):
                break
            if _stored(node.body[later], receiver) == name:
                doomed.add(index)
                break
    return _without(spliced, node, doomed)


def _without(text: Text, node: ast.FunctionDef, doomed: set[int]) -> Text:
    """The text without some statements of the function's body and the comments directly above them."""
    rows = text.text.split("\n")
    drop: set[int] = set()
    for index in doomed:
        statement = node.body[index]
        start = statement.lineno
        floor = node.body[index - 1].end_lineno or 0 if index else node.lineno
        while start - 1 > floor and rows[start - 2].lstrip().startswith("#"):
            start -= 1
        drop |= set(range(start, (statement.end_lineno or start) + 1))
    keep = [number for number in range(1, len(rows) + 1) if number not in drop]
    return Text("\n".join(rows[n - 1] for n in keep), tuple(text.origins[n - 1] for n in keep))


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
