"""`def method(self, extra, **super_kwargs)`: the parent's signature with the child's parameters in it."""

from __future__ import annotations

import ast

from .diagnostics import CompileError, Diagnostic, at
from .scopes import parameters
from .shape import Shape
from .text import Edit, Text

KEYWORDS = "super_kwargs"
POSITIONAL, PLAIN, KEYWORD = "by position only", "either way", "by keyword only"


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
    _check_names(child, outer, inner)
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


def _check_names(
    child: Text, outer: ast.FunctionDef | ast.AsyncFunctionDef, inner: ast.FunctionDef | ast.AsyncFunctionDef
) -> None:
    """Refuse what would mean something else once the inherited parameters are written out."""
    named = {p.arg for p in parameters(outer)}
    for parameter in inner.args.posonlyargs:
        if parameter.arg not in {_receiver(inner), *named}:
            message = f"the parent takes `{parameter.arg}` by position only, so `**{KEYWORDS}` cannot stand for it"
            raise CompileError(at(child, outer.args.kwarg or outer, "UB013", message, f"write `{parameter.arg}` out"))
    hidden = {p.arg for p in parameters(inner)} - named - {_receiver(inner)}
    for node in ast.walk(outer):
        if isinstance(node, ast.Name) and node.id in hidden:
            message = f"`{node.id}` is a parameter of the parent's method, for which `**{KEYWORDS}` stands"
            raise CompileError(
                at(child, node, "UB011", message, f"write `{node.id}` out as a parameter, or rename it")
            )


def _passed_on(outer: ast.FunctionDef | ast.AsyncFunctionDef, inner: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    named = {p.arg for p in parameters(outer)}
    words = [f"{name}={name}" for name in _kinds(inner) if name not in {_receiver(inner), *named}]
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
    kinds = {**_kinds(inner), **_kinds(outer)}
    names = [name for name in {**_kinds(inner), **kinds} if name not in (_receiver(inner), _receiver(outer))]
    words = {name: mine.get(name) or theirs[name] for name in names}
    positional = [name for name in names if kinds[name] == POSITIONAL]
    plain = [name for name in names if kinds[name] == PLAIN]
    if any("=" in words[name] for name in (*positional, *plain)):  # what has no default cannot follow
        own = [n for n in plain if n not in theirs and "=" not in words[n]]
        plain = [n for n in plain if n not in own]
        kinds |= dict.fromkeys(own, KEYWORD)
    written = [mine[name] for name in [_receiver(outer)] if name] + [words[name] for name in positional]
    written += ["/"] if outer.args.posonlyargs else []
    written += [words[name] for name in plain]
    star = outer.args.vararg or inner.args.vararg
    keywords = [words[name] for name in names if kinds[name] == KEYWORD]
    written += [f"*{mine.get(star.arg) or theirs[star.arg]}"] if star else ["*"] if keywords else []
    written += keywords
    if inner.args.kwarg:
        written.append(f"**{theirs[inner.args.kwarg.arg]}")
    assert outer.args.kwarg is not None
    first, last = parameters(outer)[0], outer.args.kwarg
    start = child.span(first)[0] if first is not last else child.text.rindex("**", 0, child.span(last)[0])
    return Edit(start, child.span(last)[1], ", ".join(written))


def _receiver(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """`self` or `cls`; "" of a static method."""
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    named = [p.arg for p in (*function.args.posonlyargs, *function.args.args)]
    return "" if static or not named else named[0]


def _kinds(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """How each parameter is given, in the order they are written; starred ones left out."""
    args = function.args
    pairs = ((POSITIONAL, args.posonlyargs), (PLAIN, args.args), (KEYWORD, args.kwonlyargs))
    return {p.arg: kind for kind, group in pairs for p in group}


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
