"""The imports of a module: one `Import` for each name that they bind."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from .diagnostics import Diagnostic, at
from .text import Text


@dataclass(frozen=True)
class Import:
    """One name that an import statement binds."""

    name: str
    module: str  # dotted; with leading dots where it is relative
    attribute: str | None  # None: `import module`
    guard: str | None = None  # the test of the `if` around it, as written
    block: str | None = None  # the whole `try` or `if … else` around it, which is kept as it is
    place: Diagnostic | None = field(default=None, compare=False)  # where it stands, for messages

    @property
    def statement(self) -> str:
        """The statement that binds this name alone."""
        if self.block is not None:
            return self.block
        if self.attribute is None:
            plain = self.name == self.module.partition(".")[0]
            return f"import {self.module}" + ("" if plain else f" as {self.name}")
        alias = "" if self.attribute == self.name else f" as {self.name}"
        return f"from {self.module} import {self.attribute}{alias}"


def same_imports(one: tuple[Import, ...], other: tuple[Import, ...]) -> bool:
    """Whether two bindings of a name mean the same thing; guards do not count."""
    return {(i.module, i.attribute, i.block) for i in one} == {(i.module, i.attribute, i.block) for i in other}


def read_imports(
    text: Text, node: ast.stmt, problems: list[Diagnostic], guard: str | None = None
) -> list[Import] | None:
    """The names that an import binds, or an `if` or `try` with nothing but imports in it; None for any other statement."""
    if isinstance(node, ast.If) and guard is None and not node.orelse:
        inner = [read_imports(text, child, problems, text.of(node.test).text) for child in node.body]
        return None if any(entries is None for entries in inner) else [e for entries in inner for e in entries or ()]
    if isinstance(node, (ast.If, ast.Try)) and guard is None:
        return _read_block(text, node, problems)
    if isinstance(node, ast.Import):
        place = at(text, node, "UB007", "", "")
        return [Import(a.asname or a.name.partition(".")[0], a.name, None, guard, None, place) for a in node.names]
    if not isinstance(node, ast.ImportFrom):
        return None
    module = "." * node.level + (node.module or "")
    if module == "__future__":
        return []
    found = []
    for alias in node.names:
        place = at(text, alias, "UB007", "", "")
        if alias.name == "*":
            remedy = "name what the definition uses: the compiler never imports a module to see what is in it"
            problems.append(at(text, node, "UB007", "`import *` is refused", remedy))
        else:
            found.append(Import(alias.asname or alias.name, module, alias.name, guard, None, place))
    return found


def _read_block(text: Text, node: ast.If | ast.Try, problems: list[Diagnostic]) -> list[Import] | None:
    """`if … : import … else: …` and `try: import … except ImportError: …`, where the other branch imports, assigns or passes."""
    if isinstance(node, ast.If):
        first, others = node.body, node.orelse
    elif node.orelse or node.finalbody:
        return None
    else:
        first, others = node.body, [statement for handler in node.handlers for statement in handler.body]
    block = text.of(node).text
    found: dict[str, Import] = {}
    for statement in first:
        entries = read_imports(text, statement, problems, "")
        if entries is None:
            return None
        for e in entries:
            found.setdefault(e.name, Import(e.name, e.module, e.attribute, None, block, e.place))
    for statement in others:
        names = read_imports(text, statement, problems, "")
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        plain = [t.id for t in targets if isinstance(t, ast.Name)]
        if names is None and not isinstance(statement, ast.Pass) and (not plain or len(plain) < len(targets)):
            return None
        for name in [*(e.name for e in names or ()), *plain]:
            found.setdefault(name, Import(name, "", None, None, block, at(text, node, "UB007", "", "")))
    return list(found.values()) if first else None
