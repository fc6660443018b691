"""Which names in a piece of code mean a module-level name, by Python's scoping rules (Reference, section 4.2)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


Scoped = tuple[ast.Name, frozenset[str]]  # a name, and the names that the scopes around it bind


def global_names(tree: ast.AST, local: frozenset[str] = frozenset()) -> Iterator[ast.Name]:
    """Every `Name` below `tree` that is looked up at module level; `local` holds names that an enclosing scope binds."""
    return (name for name, _ in scoped_names(tree, local))


def scoped_names(tree: ast.AST, local: frozenset[str] = frozenset()) -> Iterator[Scoped]:
    """The same with the names that would capture another one in its place."""
    yield from _visit(tree, local, frozenset())


def executed_names(node: ast.AST) -> Iterator[ast.Name]:
    """The names that are read when a definition is executed, not when it is called: bases, decorators, defaults, values."""
    for part in _executed(node):
        yield from (name for name in global_names(part) if isinstance(name.ctx, ast.Load))


def called_names(node: ast.AST) -> Iterator[ast.Name]:
    """The names that are called when a definition is executed, decorators included."""
    for part in _executed(node):
        decorators = getattr(node, "decorator_list", ())
        calls = [child.func for child in ast.walk(part) if isinstance(child, ast.Call)]
        yield from (f for f in [*calls, *(d for d in decorators if d is part)] if isinstance(f, ast.Name))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.ClassDef):
        yield from [*node.decorator_list, *node.bases, *node.keywords]
        for statement in node.body:
            yield from _executed(statement)
    elif isinstance(node, FUNCTIONS):
        yield from [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        if not isinstance(node, ast.Lambda):
            yield from node.decorator_list
    elif isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield from _executed(node.value)
    elif isinstance(node, ast.expr) and not any(isinstance(inner, ast.Lambda) for inner in ast.walk(node)):
        yield node
    else:
        for part in ast.iter_child_nodes(node):
            yield from _executed(part)


def bound_names(body: list[ast.stmt]) -> set[str]:
    """The names that a block binds in its own scope: assignments, imports, definitions, handlers, patterns."""
    names: set[str] = set()
    foreign: set[str] = set()
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            pending += node.decorator_list
            continue
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, COMPREHENSIONS):
            names |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
            continue
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
        ):
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            foreign |= set(node.names)
        pending += ast.iter_child_nodes(node)
    return names - foreign


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    """All parameters of a function in the order they are written."""
    args = function.args
    starred = [args.vararg] if args.vararg else []
    double = [args.kwarg] if args.kwarg else []
    return [*args.posonlyargs, *args.args, *starred, *args.kwonlyargs, *double]


def _visit(node: ast.AST, local: frozenset[str], class_local: frozenset[str]) -> Iterator[Scoped]:
    """`class_local`: names of the directly enclosing class body, invisible to functions and comprehensions in it."""
    if isinstance(node, ast.Name):
        if node.id not in local and node.id not in class_local:
            yield node, local | class_local
    elif isinstance(node, FUNCTIONS):
        yield from _function(node, local, class_local)
    elif isinstance(node, ast.ClassDef):
        for child in [*node.decorator_list, *node.bases, *node.keywords]:
            yield from _visit(child, local, class_local)
        inner = local | _type_parameters(node)
        names = frozenset(bound_names(node.body))
        for child in node.body:
            yield from _visit(child, inner, names)
    elif isinstance(node, COMPREHENSIONS):
        first, *rest = node.generators
        yield from _visit(first.iter, local, class_local)
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        inner = local | targets
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for part in [*first.ifs, *(p for g in rest for p in (g.iter, *g.ifs)), *parts]:
            yield from _visit(part, inner, frozenset())
    else:
        quoted: list[ast.expr] = []
        if isinstance(node, ast.AnnAssign):
            is_alias = _last_name(node.annotation) == "TypeAlias"
            quoted += _quoted(node.value if is_alias and node.value else node.annotation)
        for child in [*ast.iter_child_nodes(node), *quoted]:
            yield from _visit(child, local, class_local)


def _quoted(annotation: ast.expr) -> Iterator[ast.expr]:
    """The expressions that an annotation has in quotes, each node where it stands in the file."""
    pending: list[ast.AST] = [annotation]
    while pending:
        node = pending.pop()
        special = _last_name(node.value) if isinstance(node, ast.Subscript) else ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if (node.end_col_offset or 0) - node.col_offset == len(node.value.encode()) + 2:
                yield from _placed(node.value, node.lineno, node.col_offset + 1)
        elif special == "Annotated" and isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            pending += node.slice.elts[:1]
        elif special != "Literal":
            pending += ast.iter_child_nodes(node)


def _last_name(node: ast.expr) -> str:
    """`Literal` of `Literal` and of `typing.Literal`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _placed(text: str, line: int, column: int) -> Iterator[ast.expr]:
    try:
        found = ast.parse(text, mode="eval").body
    except SyntaxError:
        return
    for node in ast.walk(found):
        if isinstance(node, ast.expr):
            node.lineno = node.end_lineno = line
            node.col_offset += column
            node.end_col_offset = (node.end_col_offset or 0) + column
    yield from (found, *_quoted(found))


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, local: frozenset[str], class_local: frozenset[str]
) -> Iterator[Scoped]:
    args = node.args
    outside: list[ast.AST] = [*args.defaults, *(d for d in args.kw_defaults if d)]
    annotations = [p.annotation for p in parameters(node) if p.annotation]
    annotations += [node.returns] if not isinstance(node, ast.Lambda) and node.returns else []
    outside += [part for annotation in annotations for part in (annotation, *_quoted(annotation))]
    if isinstance(node, ast.Lambda):
        body: list[ast.AST] = [node.body]
        inner = {p.arg for p in parameters(node)}
    else:
        outside += node.decorator_list
        body = [*node.body]
        inner = {p.arg for p in parameters(node)} | bound_names(node.body) | _type_parameters(node)
    for child in outside:
        yield from _visit(child, local | _type_parameters(node), class_local)
    for child in body:
        yield from _visit(child, local | inner, frozenset())


def _type_parameters(node: ast.AST) -> frozenset[str]:
    return frozenset(parameter.name for parameter in getattr(node, "type_params", ()))
