"""A class taken apart into the pieces that inheritance works on, and put together again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .diagnostics import CompileError, at
from .extents import first_line
from .parse import Definition, assigned_names, is_string, statements
from .text import Edit, Text, concatenate, join


@dataclass(frozen=True)
class Member:
    """A statement of a class body, dedented, with the comments above it. A setter of `x` is called `x.setter`."""

    kind: Literal["field", "method"]
    names: tuple[str, ...]
    text: Text
    spaced: bool = False  # whether a blank line stands above it

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def node(self) -> ast.stmt:
        return self.text.tree.body[0]


@dataclass(frozen=True)
class Shape:
    """A class: the comments above it, `@` expressions, bases, keywords, docstring and members, each as text."""

    name: str
    header: Text  # the line `class Name…:`, for its origin
    lead: Text | None
    decorators: tuple[Text, ...]
    bases: tuple[Text, ...]
    keywords: tuple[Text, ...]
    docstring: Text | None
    members: tuple[Member, ...]
    kept: frozenset[str] = frozenset()  # members that merging added: methods of parents under private names

    def find(self, name: str) -> Member | None:
        return next((member for member in self.members if name in member.names), None)

    def definition(self) -> Definition:
        return Definition("class", (self.name,), write_class(self))


def read_class(definition: Definition) -> Shape:
    """The shape of a class definition; statements that inheritance has no meaning for are refused."""
    text, node = definition.text, definition.node
    assert isinstance(node, ast.ClassDef)
    first = first_line(node)
    is_empty = isinstance(node.body[0], ast.Pass) or _is_ellipsis(node.body[0])
    if node.body[0].lineno == node.lineno and not is_empty:
        message = "the body of this class stands on the line of its header"
        raise CompileError(at(text, node.body[0], "UB013", message, "put it on a line of its own"))
    for keyword in node.keywords:
        if keyword.arg == "metaclass":
            message = "a metaclass is refused: its effect on the flattened class is not known"
            raise CompileError(at(text, keyword.value, "UB013", message, "use plain inheritance"))
    docstring, members = None, []
    if node.body[0].lineno != node.lineno:
        for number, (child, piece) in enumerate(statements(text, node.body)):
            if number == 0 and is_string(child):
                docstring = text.of(child)
            elif not isinstance(child, ast.Pass) and not _is_ellipsis(child):
                members.append(_member(text, child, piece, _is_spaced(text, child, piece)))
    _refuse_doubles(text, node, members)
    return Shape(
        definition.name,
        text.lines(node.lineno, node.lineno),
        text.lines(1, first - 1) if first > 1 else None,
        tuple(text.of(d) for d in node.decorator_list),
        tuple(text.of(b) for b in node.bases),
        tuple(text.of(k) for k in node.keywords),
        docstring,
        tuple(members),
    )


def write_class(shape: Shape) -> Text:
    """The class as source text, members in their order, a blank line around methods."""
    origin = shape.header.origins[:1]
    parts = [shape.lead] if shape.lead else []
    parts += [concatenate([Text("@", d.origins[:1]), d]) for d in shape.decorators]
    arguments = ", ".join(piece.text for piece in (*shape.bases, *shape.keywords))
    parts.append(Text(f"class {shape.name}({arguments}):" if arguments else f"class {shape.name}:", origin))
    body: list[Text] = []
    if shape.docstring:
        body.append(concatenate([Text("    ", shape.docstring.origins[:1]), shape.docstring]))
    previous = "docstring"
    for member in shape.members:
        gap = member.spaced or member.kind == "method" or previous in ("method", "docstring")
        if gap and body:
            body.append(Text("", body[-1].origins[-1:]))
        body.append(member.text.shift(4))
        previous = member.kind
    if not body:
        body.append(Text("    pass", origin))
    return join([*parts, *body])


def class_name_edit(text: Text, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Edit:
    """The edit that gives a definition another name."""
    header = re.compile(r"(?:async\s+)?(?:def|class)\s+(\w+)")
    found = header.match(text.text, text.offset(node.lineno, node.col_offset))
    assert found, "a definition starts with its keyword and its name"
    return Edit(*found.span(1), name)


def _member(text: Text, node: ast.stmt, piece: Text, spaced: bool) -> Member:
    dedented = piece.shift(-node.col_offset)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if node.name == "__init_subclass__":
            message = "`__init_subclass__` is refused: it runs when a class is made, which the compiler never does"
            raise CompileError(at(text, node, "UB013", message, "say in each class what it would do"))
        accessor = next(_accessors(node), "")
        return Member("method", (f"{node.name}.{accessor}" if accessor else node.name,), dedented, spaced)
    names = assigned_names(node)
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        names = (node.target.id,)
    if isinstance(node, ast.ClassDef):
        names = (node.name,)
    if not names:
        message = "a class body may hold a docstring, fields and methods; this statement has no meaning for a subclass"
        remedy = "move it into a method or out of the class"
        if isinstance(node, ast.Delete):
            remedy = f"write `{ast.unparse(node.targets[0])} = removed`, with `removed` from `unibody.core`"
        raise CompileError(at(text, node, "UB013", message, remedy))
    return Member("method" if isinstance(node, ast.ClassDef) else "field", names, dedented, spaced)


def _is_spaced(text: Text, node: ast.stmt, piece: Text) -> bool:
    """Whether a blank line stands above a statement and its comments."""
    comments = next(n for n, row in enumerate(piece.text.split("\n")) if not row.lstrip().startswith("#"))
    above = first_line(node) - comments - 1
    return above >= 1 and not text.lines(above, above).text.strip()


def _accessors(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Attribute) and decorator.attr in ("setter", "deleter", "getter"):
            yield decorator.attr


def _refuse_doubles(text: Text, node: ast.ClassDef, members: list[Member]) -> None:
    seen: set[str] = set()
    for member in members:
        for name in member.names:
            if name in seen:
                message = f"`{name}` is defined twice in class `{node.name}`"
                raise CompileError(at(member.text, member.node, "UB009", message, "keep one of the two definitions"))
            seen.add(name)


def _is_ellipsis(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...
