"""The names of a parent's parameters and locals where its body takes the place of a `super()` call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .scopes import FUNCTIONS, bound_names, global_names, parameters, scoped_names

if TYPE_CHECKING:
    from .super_calls import SuperUse

Function = ast.FunctionDef | ast.AsyncFunctionDef


def plan_names(
    outer: Function, use: SuperUse, inner: Function, arguments: dict[str, ast.expr]
) -> dict[str, str | None]:
    """New names for the parent's locals; None marks a parameter that its argument replaces in the text."""
    parent_bound = bound_names(inner.body)
    parent_attributes = {
        n.attr for n in ast.walk(inner) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
    }
    before = {p.arg for p in parameters(outer)} | bound_names(outer.body[: use.index])
    if not use.nested:
        live = {name for name in before if _read_later(name, outer.body[use.index + 1 :])}
    elif isinstance(use.statement, ast.Return):
        live = set()
    else:  # in a loop, what stands before may run later
        live = {n.id for n in ast.walk(outer) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    live |= {n.id for n in _target_reads(use.statement)}
    live |= {n.id for n in global_names(outer)}
    taken = bound_in(outer) | {n.id for n in ast.walk(outer) if isinstance(n, ast.Name)} | parent_bound
    scopes: dict[str, set[str]] = {}  # the names that comprehensions and nested functions around a parameter bind
    for use_of, around in scoped_names(ast.Module(inner.body, [])):
        scopes.setdefault(use_of.id, set()).update(around)
    captured = _captured(inner)
    plan: dict[str, str | None] = {}
    own, theirs = parameters(outer)[0].arg, parameters(inner)[0].arg
    if own != theirs:
        plan[theirs] = own
    for name, value in arguments.items():
        if isinstance(value, ast.Name) and value.id == name and not (name in parent_bound and name in live):
            continue
        hidden = parent_bound | scopes.get(name, set())
        is_kept = name in captured and isinstance(value, ast.Attribute)
        if name not in parent_bound and not is_kept and _simple(value, hidden, parent_attributes):
            plan[name] = None
        elif name in live or _read_by_others(name, arguments):
            plan[name] = _fresh(name, taken)
    for name in sorted(parent_bound - arguments.keys()):
        if name in live:
            plan[name] = _fresh(name, taken)
    return plan


def may_change(
    outer: Function, use: SuperUse, inner: Function, arguments: dict[str, ast.expr], plan: dict[str, str | None]
) -> bool:
    """Whether a name may change after the parent's body, where a function written in that body reads it."""
    captured = _captured(inner)
    loops = [node for node in ast.walk(outer) if isinstance(node, (ast.For, ast.AsyncFor, ast.While))]
    if captured and any(use.statement in ast.walk(loop) for loop in loops):
        return True
    values = [arguments[name] for name in captured if plan.get(name, name) is None]
    names = {plan.get(name, name) for name in captured} | {v.id for v in values if isinstance(v, ast.Name)}
    return bool(names & bound_names(outer.body[use.index :]))


def _captured(function: Function) -> set[str]:
    """The names of a function, but for its receiver, that functions written in it read."""
    own = {p.arg for p in parameters(function)[1:]} | bound_names(function.body)
    nested = [node for node in ast.walk(function) if isinstance(node, FUNCTIONS) and node is not function]
    return own & {name.id for node in nested for name in global_names(node)}


def bound_in(function: Function) -> set[str]:
    return {p.arg for p in parameters(function)} | bound_names(function.body)


def _target_reads(statement: ast.stmt) -> Iterator[ast.Name]:
    """The names that an assignment's target reads, such as `i` of `self.states[i] = …`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        for node in ast.walk(target) if target is not None else ():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield node


def _read_later(name: str, statements: list[ast.stmt]) -> bool:
    """Whether the statements read the value that `name` has before them."""
    for statement in statements:
        reads = any(
            isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in ast.walk(statement)
        )
        if reads:
            return True
        if isinstance(statement, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in statement.targets
        ):
            return False
    return False


def _simple(value: ast.expr, rebound: set[str], stored: set[str]) -> bool:
    """Whether reading the expression later, and more than once, gives the same value."""
    if isinstance(value, ast.Constant):
        return True
    if isinstance(value, ast.Attribute):
        return value.attr not in stored and _simple(value.value, rebound, stored)
    return isinstance(value, ast.Name) and value.id not in rebound


def _read_by_others(name: str, arguments: dict[str, ast.expr]) -> bool:
    """Whether assigning `name` first would change what another argument means."""
    return any(
        isinstance(n, ast.Name) and n.id == name
        for other, v in arguments.items()
        if other != name
        for n in ast.walk(v)
    )


def _fresh(name: str, taken: set[str]) -> str:
    candidate = f"{name}_inner"
    while candidate in taken:
        candidate += "_"
    taken.add(candidate)
    return candidate
