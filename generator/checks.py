"""Where text and meaning would pull apart: what a merge refuses."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .diagnostics import CompileError, Diagnostic, at
from .parse import Definition
from .scopes import executed_names
from .shape import Member, Shape
from .tables import is_foldable, parent_references


def check_parent_references(definition: Definition, bases: list[str]) -> None:
    """In a class that inherits from `Base`, `Base.x` may only extend a table: elsewhere it would mean the class itself."""
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    for base in bases:
        for statement in node.body:
            for reference in parent_references(definition.text, statement, base):
                if not is_foldable(statement, reference):
                    message = f"`{base}.{reference.attr}` inside a class that inherits from `{base}`"
                    remedy = f"write `super().{reference.attr}` in a method, or `(*{base}.{reference.attr}, …)` to extend a table"
                    raise CompileError(at(definition.text, reference, "UB013", message, remedy))


def check_class_level(child: Shape, parent: Shape, name: str, kept: list[Member]) -> None:
    """A kept expression of the parent's class body must not read what the child overrides, nor the child's what it inherits."""
    own = {key for member in child.members for key in member.names}
    theirs = {key for member in parent.members for key in member.names}
    for member in kept:
        for use in _class_level(member):
            if use.id in own & theirs:
                message = f"`{member.name}` of `{name}` is computed from `{use.id}`, which `{child.name}` overrides"
                raise CompileError(at(member.text, use, "UB013", message, f"override `{member.name}` too"))
    for member in child.members:
        getter, _, accessor = member.name.partition(".")
        if accessor and getter not in own:
            message = f"the {accessor} of `{getter}` is here, its getter in `{name}`"
            raise CompileError(at(member.text, member.node, "UB013", message, "write the getter here too"))
        for use in _class_level(member):
            if use.id in theirs - own:
                message = f"a class body does not see the names of its bases: `{use.id}` is inherited from `{name}`"
                raise CompileError(at(member.text, use, "UB013", message, "write the value out"))


def check_order(shape: Shape) -> None:
    """Merging puts overrides in the parent's place: what they read in the class body must still stand before them."""
    names = {key for member in shape.members for key in member.names}
    seen: set[str] = set()
    for member in shape.members:
        for use in _class_level(member):
            if use.id in names - seen - set(member.names):
                message = f"`{member.name}` takes its parent's place, before `{use.id}`, which it reads"
                raise CompileError(at(member.text, use, "UB013", message, "write the value out"))
        seen |= set(member.names)


def check_decorators(child: Shape, parent: Shape, name: str) -> None:
    """Decorators of a class are not inherited by Python; only for dataclasses is it known what flattening must do."""
    mine = {decorator.text for decorator in child.decorators}
    for decorator in parent.decorators:
        if not is_dataclass(decorator.text) and decorator.text not in mine:
            raise CompileError(_unknown_decorator(child, decorator.text, name))


def is_dataclass(decorator: str) -> bool:
    return decorator.partition("(")[0].rpartition(".")[2] == "dataclass"


def _unknown_decorator(child: Shape, decorator: str, name: str) -> Diagnostic:
    message = f"`{name}` is decorated with `{decorator}`: what of it `{child.name}` inherits is not known"
    remedy = f"decorate `{child.name}` with it too, or take it off `{name}`"
    header = child.header
    return at(
        header,
        ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=len(header.text.encode())),
        "UB013",
        message,
        remedy,
    )


def _class_level(member: Member) -> Iterator[ast.Name]:
    """The names that are looked up in the class body when it is executed; an accessor names its own property."""
    for use in executed_names(member.node):
        if use.id != member.name.partition(".")[0] or "." not in member.name:
            yield use
