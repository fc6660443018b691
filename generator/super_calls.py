"""`super().method(…)` of a flattened class: the parent's body put where the call stands.

The call's arguments are bound to the parent's parameters: substituted where that is safe, assigned before the body otherwise.
A local of the parent's that would overwrite one that the child still needs gets another name. Where text cannot keep the
meaning (an early return, a call inside an expression, two calls) `splice` returns None, and the caller keeps the parent's
method as a private one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .diagnostics import CompileError, at
from .extents import first_line
from .local_names import Function, bound_in, may_change, plan_names
from .scopes import COMPREHENSIONS, FUNCTIONS, bound_names, global_names, parameters
from .text import Edit, Mixed, Text, join


@dataclass(frozen=True)
class SuperUse:
    """`super().<method>`, called or not, and the innermost statement that holds it."""

    attribute: ast.Attribute
    call: ast.Call | None  # the call of it, where it is called
    method: str
    statement: ast.stmt
    index: int  # in the method's body, of the statement that it is or stands in
    nested: bool  # whether it only stands in that one


def super_uses(method: Text) -> list[SuperUse]:
    """All uses of `super()` in a method; forms that flattening cannot give a meaning to are refused."""
    node = method.tree.body[0]
    if isinstance(node, ast.ClassDef):  # `super()` in its methods is between it and its own bases
        return []
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for child in filter(_is_super, ast.walk(node)):
            message, remedy = "`super()` outside a method", "write a method with `def`"
            raise CompileError(at(method, child, "UB013", message, remedy))
        return []
    found: list[SuperUse] = []
    known: set[ast.AST] = set()
    for index, statement in enumerate(node.body):
        called = {id(child.func): child for child in ast.walk(statement) if isinstance(child, ast.Call)}
        for child in ast.walk(statement):
            if isinstance(child, (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)) and any(map(_is_super, ast.walk(child))):
                message = "`super()` inside a nested function, class or comprehension"
                remedy = "call it in the method itself and pass the result on"
                raise CompileError(at(method, child, "UB013", message, remedy))
            if isinstance(child, ast.Attribute) and _is_super(child.value):
                inner = _innermost(statement, child)
                found.append(SuperUse(child, called.get(id(child)), child.attr, inner, index, inner is not statement))
                known.add(child.value)
    for child in ast.walk(node):
        if _is_super(child) and isinstance(child, ast.Call) and (child.args or child not in known):
            message = "`super` with arguments" if child.args else "`super()` by itself"
            raise CompileError(at(method, child, "UB013", message, "write `super().method(…)`"))
    return sorted(found, key=lambda use: (use.attribute.end_lineno or 0, use.attribute.end_col_offset or 0))


def _innermost(statement: ast.stmt, target: ast.AST) -> ast.stmt:
    """The smallest statement around a node."""
    around = [
        node for node in ast.walk(statement) if isinstance(node, ast.stmt) and any(n is target for n in ast.walk(node))
    ]
    return around[-1]  # walk goes from the outside to the inside


def splice(child: Text, use: SuperUse, parent: Text) -> Text | None:
    """The child's method with the parent's body in place of `use`, or None where that could change the meaning."""
    outer, inner = child.tree.body[0], parent.tree.body[0]
    if use.call is None:
        return None
    assert isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
    assert isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))
    form = _form(use)
    if form is None or type(outer) is not type(inner) or not _spliceable(outer, inner, form):
        return None
    if _shares_line(child, use.statement) or _shares_line(parent, inner.body[0]):
        return None
    if {n.id for n in global_names(inner)} & bound_in(outer):
        return None
    arguments = bind(inner, use.call)
    if arguments is None:
        return None
    plan = plan_names(outer, use, inner, arguments)
    if form != "return" and may_change(outer, use, inner, arguments, plan):
        return None
    prepared = _substitute(child, parent, inner, arguments, plan)
    if plan.keys() & bound_names(prepared.tree.body[0].body):  # type: ignore[attr-defined]
        return None  # something else than an assignment binds a name that had to change
    call_start = child.span(use.attribute)[0]
    target = child.slice(child.span(use.statement)[0], call_start)
    if form == "assign" and not target.text.rstrip().endswith("="):
        return None  # the call stands in brackets
    body = _body(prepared, form, target)
    start, end = child.span(use.statement)
    spliced = [*_assignments(child, use, parent, inner, arguments, plan), *body]
    if not spliced and not use.nested and len(outer.body) > 1:
        start, end = child.start(use.statement.lineno), child.start((use.statement.end_lineno or 0) + 1)
        return documented(child.edit([Edit(start, end, "")]), parent)
    lines = join(spliced or [Text("pass", child.of(use.statement).origins[:1])]).shift(use.statement.col_offset)
    margin = len(lines.text) - len(lines.text.lstrip(" "))
    return documented(child.edit([Edit(start, end, lines.slice(margin, len(lines.text)))]), parent)


def bind(function: Function, call: ast.Call) -> dict[str, ast.expr] | None:
    """Each parameter's value in a call of a bound method (`self` left out), or None where it is not known."""
    args = function.args
    names = [p.arg for p in (*args.posonlyargs, *args.args)][1:]
    given: dict[str, ast.expr] = {}
    starred = [a for a in call.args if isinstance(a, ast.Starred)]
    double = [k for k in call.keywords if k.arg is None]
    if starred or args.vararg:
        same = len(starred) == 1 and isinstance(starred[0].value, ast.Name) and args.vararg
        if not (same and starred[0].value.id == args.vararg.arg and len(call.args) == len(names) + 1):  # type: ignore[union-attr, attr-defined]
            return None
    if double or args.kwarg:
        same = len(double) == 1 and isinstance(double[0].value, ast.Name) and args.kwarg
        if not (same and double[0].value.id == args.kwarg.arg):  # type: ignore[union-attr, attr-defined]
            return None
    plain = [a for a in call.args if not isinstance(a, ast.Starred)]
    if len(plain) > len(names):
        return None
    given.update(zip(names, plain, strict=False))
    every = {*names, *(p.arg for p in args.kwonlyargs)}
    for keyword in call.keywords:
        if keyword.arg is not None:
            if keyword.arg not in every or keyword.arg in given:
                return None
            given[keyword.arg] = keyword.value
    defaults = dict(zip(reversed(names), reversed(args.defaults), strict=False))
    defaults |= {p.arg: d for p, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None}
    for name in [*names, *(p.arg for p in args.kwonlyargs)]:
        if name not in given:
            if name not in defaults or not isinstance(defaults[name], ast.Constant):
                return None
            given[name] = defaults[name]
    return given


def is_abstract(decorator: ast.expr) -> bool:
    """Whether a decorator says only that a subclass has to write the method."""
    return ast.unparse(decorator).rpartition(".")[2] == "abstractmethod"


def _is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _form(use: SuperUse) -> str | None:
    """How the call stands: as a statement, returned, or assigned to one target."""
    match use.statement:
        case ast.Expr(value=value) if value is use.call:
            return "statement"
        case ast.Return(value=value) if value is use.call:
            return "return"
        case ast.Assign(targets=[_], value=value) | ast.AnnAssign(value=value) if value is use.call:
            return "assign"
    return None


def _spliceable(child: Function, parent: Function, form: str) -> bool:
    decorators = [[ast.unparse(d) for d in node.decorator_list if not is_abstract(d)] for node in (child, parent)]
    if decorators[1] and decorators != [["classmethod"], ["classmethod"]]:
        return False
    nodes = list(_own_nodes(parent))
    if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in nodes):
        return False
    if any(isinstance(n, (ast.Global, ast.Nonlocal)) for n in ast.walk(parent)):
        return False
    returns = [n for n in nodes if isinstance(n, ast.Return)]
    if form == "return":
        return True
    final = parent.body[-1]
    if any(r is not final for r in returns):
        return False
    return form == "statement" or (isinstance(final, ast.Return) and final.value is not None)


def _shares_line(text: Text, statement: ast.stmt) -> bool:
    """Whether a statement stands on the line of a header: `if x: return y`."""
    line = first_line(statement)
    return bool(text.row(line)[: text.offset(line, statement.col_offset) - text.start(line)].strip())


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of nested functions and classes."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            pending += ast.iter_child_nodes(node)


def _substitute(
    child: Text, parent: Text, inner: Function, arguments: dict[str, ast.expr], plan: dict[str, str | None]
) -> Text:
    edits = []
    for node in global_names(ast.Module(inner.body, [])):  # of nested scopes only what they take from this one
        if node.id in plan:
            new = plan[node.id]
            start, end = parent.span(node)
            edits.append(
                Edit(start, end, _expression(child, inner, parent, arguments[node.id]) if new is None else new)
            )
    return parent.edit(edits)


def _expression(child: Text, inner: Function, parent: Text, value: ast.expr) -> Text:
    """An argument as text; it stands in the call, or in the parent's signature when it is a default."""
    defaults = [*inner.args.defaults, *(d for d in inner.args.kw_defaults if d)]
    return (parent if any(value is d for d in defaults) else child).of(value)


def _assignments(
    child: Text,
    use: SuperUse,
    parent: Text,
    inner: Function,
    arguments: dict[str, ast.expr],
    plan: dict[str, str | None],
) -> Iterator[Text]:
    used = {n.id for statement in inner.body for n in ast.walk(statement) if isinstance(n, ast.Name)}
    for name, value in arguments.items():
        identical = isinstance(value, ast.Name) and value.id == name and name not in plan
        pure = all(isinstance(n, (ast.Name, ast.Constant, ast.expr_context)) for n in ast.walk(value))
        if identical or plan.get(name, name) is None or (name not in used and pure):
            continue
        origin = child.of(use.attribute).origins[:1]
        source = value.value if isinstance(value, ast.Constant) else None
        text = repr(source) if isinstance(value, ast.Constant) else child.of(value).text
        rows = origin if isinstance(value, ast.Constant) else child.of(value).origins
        named = next(parent.of(p).origins[0] for p in parameters(inner) if p.arg == name)
        yield Text(f"{plan.get(name) or name} = {text}", (Mixed.of(rows[0], named), *rows[1:]))


def _body(parent: Text, form: str, target: Text) -> list[Text]:
    """The statements of the parent's method, dedented, without its docstring, its last `return` put in the call's form."""
    node = parent.tree.body[0]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not body:
        return []
    start = body_start(parent, node) if body is node.body else (node.body[0].end_lineno or 0) + 1
    lines = parent.lines(start, parent.text.count("\n") + 1)
    final = body[-1]
    if form == "return" or not isinstance(final, ast.Return):
        if len(body) == 1 and isinstance(final, ast.Pass):
            return []
        return [lines.shift(-node.body[0].col_offset)]
    head = parent.lines(start, final.lineno - 1) if final.lineno > start else None
    pieces = [head.shift(-node.body[0].col_offset)] if head else []
    if (
        form == "assign"
        and final.value is not None
        and parent.of(final.value).text == target.text.rstrip().removesuffix("=").rstrip()
    ):
        return pieces  # `x = x` says nothing
    if form == "assign":
        last = parent.of(final).edit([Edit(0, len("return"), target.slice(0, len(target.text.rstrip())))])
        pieces.append(last)
    elif any(isinstance(n, (ast.Call, ast.Await)) for n in ast.walk(final)) and final.value is not None:
        pieces.append(parent.of(final.value))
    return pieces


def body_start(text: Text, node: Function) -> int:
    """The first line of a function's body, counted from 1, the comments above its first statement included."""
    first = first_line(node.body[0])
    rows = text.text.split("\n")
    while rows[first - 2].lstrip().startswith("#"):
        first -= 1
    return first


def documented(result: Text, parent: Text) -> Text:
    """A child's method, with the parent's docstring where it has none."""
    outer, inner = result.tree.body[0], parent.tree.body[0]
    assert isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
    assert isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))
    if ast.get_docstring(outer, clean=False) is not None or ast.get_docstring(inner, clean=False) is None:
        return result
    docstring = parent.of(inner.body[0])
    start = result.starts[body_start(result, outer) - 1]
    return result.edit([Edit(start, start, join([docstring, Text("", docstring.origins[-1:])]).shift(4))])
