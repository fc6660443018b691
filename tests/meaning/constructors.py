"""What a constructor leaves undone because its heir does it: stores that are overwritten unread, and post_init."""

from __future__ import annotations

import ast

from meaning.rewriting import NOWHERE, changed

SUPER, FINISH = "super().__init__", "self.post_init"


def called(statement: ast.stmt) -> str:
    """What a statement calls, if it does nothing else."""
    value = getattr(statement, "value", None)
    return ast.unparse(value.func) if isinstance(statement, ast.Expr) and isinstance(value, ast.Call) else ""


def shorten(init: ast.FunctionDef, undone: frozenset[str]) -> tuple[ast.FunctionDef, frozenset[str]]:
    """The constructor without what is `undone` by an heir, and what the constructor that it calls may leave undone.

    Things undone are attributes that are stored before anything reads them again, and "post_init()".
    """
    heirs, all_undone, passed = set(undone), set(undone), set[str]()
    kept: list[ast.stmt] = []
    for statement in reversed(init.body):
        name = "post_init()" if called(statement) == FINISH else stored(statement)
        if name in heirs:
            continue
        kept.append(statement)
        if called(statement) == SUPER:
            passed = set(all_undone)
        gone = all_undone - {"post_init()"} if calls_itself(statement) else read(statement)
        heirs -= gone
        all_undone -= gone
        if name and name not in read(statement):
            all_undone.add(name)
    body = kept[::-1] or [ast.Pass(**NOWHERE)]
    return changed(init, body=body), frozenset(passed)


def stored(statement: ast.stmt) -> str:
    """`x` of a statement `self.x = value`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or len(targets) > 1 or statement.value is None:
        return ""
    target = targets[0]
    return target.attr if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" else ""


def read(statement: ast.stmt) -> set[str]:
    """The attributes of self that a statement reads or deletes."""
    found = [n for n in ast.walk(statement) if isinstance(n, ast.Attribute) and not isinstance(n.ctx, ast.Store)]
    return {n.attr for n in found if isinstance(n.value, ast.Name) and n.value.id == "self"}


def calls_itself(statement: ast.stmt) -> bool:
    """Whether a statement may run code that reads any attribute: it calls a method of self, or hands self on."""
    nodes = list(ast.walk(statement))
    plain = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    methods = [n.func.value for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    handed = any(isinstance(n, ast.Name) and n.id == "self" and id(n) not in plain for n in nodes)
    return handed or any(isinstance(owner, ast.Name) and owner.id == "self" for owner in methods)
