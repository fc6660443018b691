"""Making a failing case small: statements and parts of expressions are taken away as long as it still fails."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator


def reduce_texts(texts: dict[str, str], fails: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The texts with everything taken away that the failure does not need; `fails` is true of `texts`."""
    trees = {name: ast.parse(text) for name, text in texts.items()}
    position = 0
    progress = True
    while progress:
        progress = False
        position = 0
        while True:
            candidate = copy.deepcopy(trees)
            change = next(_nth(candidate, position), None)
            if change is None:
                break
            change()
            if _fails(candidate, fails):
                trees, progress = candidate, True
            else:
                position += 1
    return {name: ast.unparse(tree) + "\n" for name, tree in trees.items()}


def _fails(trees: dict[str, ast.Module], fails: Callable[[dict[str, str]], bool]) -> bool:
    try:
        texts = {name: ast.unparse(ast.fix_missing_locations(tree)) + "\n" for name, tree in trees.items()}
        for text in texts.values():
            compile(text, "", "exec")
    except (SyntaxError, ValueError, AttributeError, TypeError):
        return False
    return fails(texts)


def _nth(trees: dict[str, ast.Module], position: int) -> Iterator[Callable[[], None]]:
    for number, change in enumerate(_changes(trees)):
        if number == position:
            yield change
            return


def _changes(trees: dict[str, ast.Module]) -> Iterator[Callable[[], None]]:
    """The simplifications of all texts, the large ones first."""
    nodes = [node for tree in reversed(trees.values()) for node in ast.walk(tree)]
    nodes = [node for node in nodes if not isinstance(node, ast.While)]  # which must still end
    for node in nodes:
        for field in (
            "body",
            "orelse",
            "finalbody",
            "handlers",
            "decorator_list",
            "names",
            "bases",
            "keywords",
            "args",
            "elts",
        ):
            block = getattr(node, field, None)
            for index in range(len(block) if isinstance(block, list) else 0):
                yield lambda block=block, index=index, field=field: _drop(block, index, field)
                inner = getattr(block[index], "body", None)
                if field == "body" and isinstance(inner, list) and not isinstance(block[index], ast.ClassDef):
                    yield lambda block=block, index=index, inner=inner: _splice(block, index, inner)
    for node in nodes:
        if isinstance(node, ast.arguments) and node.args:
            yield lambda node=node: _drop_parameter(node)
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr) and not isinstance(value, (ast.Constant, ast.Name)):
                for part in [c for c in ast.iter_child_nodes(value) if isinstance(c, ast.expr)]:
                    yield lambda node=node, field=field, part=part: setattr(node, field, part)
                yield lambda node=node, field=field: setattr(node, field, ast.Constant(1))
            elif isinstance(value, ast.Name) and isinstance(value.ctx, ast.Load):
                yield lambda node=node, field=field: setattr(node, field, ast.Constant(1))


def _drop(block: list[ast.AST], index: int, field: str) -> None:
    """Without one element; a body of only `pass` becomes empty, which does not compile and so does not count."""
    if field == "body" and len(block) == 1 and not isinstance(block[0], ast.Pass):
        block[0] = ast.Pass()
    else:
        del block[index]


def _splice(block: list[ast.AST], index: int, inner: list[ast.AST]) -> None:
    block[index : index + 1] = inner


def _drop_parameter(node: ast.arguments) -> None:
    node.args.pop()
    del node.defaults[len(node.args) :]
