"""`def method(self, extra, **super_kwargs)`: the parent's signature with the child's parameters in it."""

from __future__ import annotations

import ast

from .diagnostics import CompileError, Diagnostic, at
from .scopes import parameters
from .shape import Shape
from .text import Edit, Text

KEYWORDS = "super_kwargs"


def inherit_signature(child: Text, parent: Text) -> Text:
    """The child's method with `**super_kwargs` replaced by the parent's parameters that the child does not name.

    The parent's parameters come first, in its order, each as the child writes it where it does; then the child's own.
    """
    outer, inner = child.tree.body[0], parent.tree.body[0]
    if not isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return child
    if outer.args.kwarg is None or outer.args.kwarg.arg != KEYWORDS:
        return child
    if not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise CompileError(_no_method(child, outer.args.kwarg))
    passed = _passed_on(outer, inner)
    edits = [_signature(child, outer, parent, inner)]
    for node in ast.walk(outer):
        if isinstance(node, ast.keyword) and node.arg is None and _is_keywords(node.value):
            start, end = child.span(node)
            edits.append(Edit(start, end, passed) if passed else _without_argument(child, start, end))
        elif isinstance(node, ast.Name) and _is_keywords(node) and not _in_call(outer, node):
            message = f"`{KEYWORDS}` is no dictionary: it stands for parameters"
            raise CompileError(at(child, node, "UB013", message, f"use it as `super().{outer.name}(**{KEYWORDS})`"))
    return child.edit(edits)


def check_signatures(shape: Shape) -> None:
    """After merging, no method may be left whose `**super_kwargs` no parent has filled."""
    for member in shape.members:
        node = member.node
        keywords = node.args.kwarg if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None
        if keywords is not None and keywords.arg == KEYWORDS:
            raise CompileError(_no_method(member.text, keywords))


def _no_method(text: Text, place: ast.arg) -> Diagnostic:
    message = f"`**{KEYWORDS}` stands for the parameters of the parent's method, but there is no such method"
    return at(text, place, "UB015", message, "write the parameters out")


def _passed_on(outer: ast.FunctionDef | ast.AsyncFunctionDef, inner: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    named = {p.arg for p in parameters(outer)}
    theirs = [p.arg for p in (*inner.args.posonlyargs, *inner.args.args)][1:] + [p.arg for p in inner.args.kwonlyargs]
    words = [f"{name}={name}" for name in theirs if name not in named]
    if inner.args.kwarg:
        words.append(f"**{inner.args.kwarg.arg}")
    return ", ".join(words)


def _signature(
    child: Text,
    outer: ast.FunctionDef | ast.AsyncFunctionDef,
    parent: Text,
    inner: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Edit:
    mine, theirs = _written(child, outer), _written(parent, inner)
    own = list(mine)[1:]
    words = [next(iter(mine.values()))]
    inherited = [p.arg for p in (*inner.args.posonlyargs, *inner.args.args)][1:]
    keyword_only = [p.arg for p in inner.args.kwonlyargs]
    words += [mine.get(name, theirs[name]) for name in inherited]
    extra = [name for name in own if name not in inherited and name not in keyword_only]
    plain = {p.arg for p in (*outer.args.posonlyargs, *outer.args.args)}
    defaults = any("=" in word for word in words)
    positional = [n for n in extra if n in plain and ("=" in mine[n] or not defaults)]
    keyword_only += [name for name in extra if name not in positional]
    words += [mine[name] for name in positional]
    if inner.args.vararg:
        words.append(f"*{theirs[inner.args.vararg.arg]}")
    elif keyword_only:
        words.append("*")
    words += [mine.get(name) or theirs[name] for name in keyword_only]
    if inner.args.kwarg:
        words.append(f"**{theirs[inner.args.kwarg.arg]}")
    first = outer.args.posonlyargs[0] if outer.args.posonlyargs else outer.args.args[0]
    assert outer.args.kwarg is not None
    return Edit(child.span(first)[0], child.span(outer.args.kwarg)[1], ", ".join(words))


def _written(text: Text, function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """Each parameter as it is written, with annotation and default; `**super_kwargs` left out."""
    args = function.args
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    pairs += [(p, None) for p in (args.vararg, args.kwarg) if p and p.arg != KEYWORDS]
    return {p.arg: text.text[text.span(p)[0] : text.span(default or p)[1]] for p, default in pairs}


def _without_argument(text: Text, start: int, end: int) -> Edit:
    """The edit that takes an argument out of a call, with the comma before it."""
    before = text.text[:start].rstrip()
    return Edit(len(before) - 1 if before.endswith(",") else start, end, "")


def _is_keywords(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == KEYWORDS


def _in_call(outer: ast.AST, name: ast.Name) -> bool:
    return any(isinstance(n, ast.keyword) and n.arg is None and n.value is name for n in ast.walk(outer))
