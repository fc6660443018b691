"""Statements as they read where they are inherited."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from meaning.definition import FUNCTIONS

if TYPE_CHECKING:
    from meaning.interpreter import View

SCOPES = (ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NOWHERE = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}


def changed(node: Any, **fields: Any) -> Any:
    """A copy of a node with other fields."""
    return type(node)(**{**vars(node), **fields})


class Rewriter:
    """Copies a statement as it reads where it is inherited: literals, attributes; and assignments to global names."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.declared: set[str] = set()

    def visit(self, node: Any) -> Any:
        new = type(node)(**vars(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            new.value = self.view.literal(node.value)
        elif isinstance(node, ast.Attribute):
            new.attr = self.view.attribute(node.attr)
        elif isinstance(node, ast.Name) and node.id in self.declared and isinstance(node.ctx, ast.Store):
            return ast.Attribute(ast.Name("__family__", ast.Load(), **NOWHERE), node.id, node.ctx, **NOWHERE)
        outer = self.declared
        if isinstance(node, FUNCTIONS):
            self.declared = {name for s in node.body if isinstance(s, ast.Global) for name in s.names}
        elif isinstance(node, SCOPES):
            self.declared = set()
        for field, value in vars(node).items():
            if isinstance(value, list):
                whole = isinstance(node, ast.JoinedStr)  # whose pieces of text are no literals of their own
                new_list = [
                    v if not isinstance(v, ast.AST) or (whole and isinstance(v, ast.Constant)) else self.visit(v)
                    for v in value
                ]
                setattr(new, field, new_list)
            elif isinstance(value, (ast.expr, ast.stmt, ast.arguments)):
                setattr(new, field, self.visit(value))
        self.declared = outer
        return new


class Assigner:
    """Stands for the module in `global name; name = …`."""

    def __init__(self, view: View) -> None:
        vars(self)["view"] = view

    def __setattr__(self, name: str, value: Any) -> None:
        self.view.world.assign(self.view.final(name), value)

    def __getattr__(self, name: str) -> Any:
        return self.view.namespace[name]
