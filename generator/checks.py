"""Where text and meaning would pull apart: what a merge refuses."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

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
                    if any(reference in ast.walk(d) for d in getattr(statement, "decorator_list", ())):
                        remedy = "write the getter here, too, and decorate with its name"
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
            message = f"`{name}` is decorated with `{decorator.text}`: what of it `{child.name}` inherits is not known"
            raise CompileError(
                _of_header(child, message, f"decorate `{child.name}` with it too, or take it off `{name}`")
            )


def check_dataclass(child: Shape, parents: Sequence[Shape], names: Sequence[str], above: Sequence[set[str]]) -> None:
    """Fields must be the same whether each class is a dataclass of its own or all are one.

    `above` are the names in the bases of each parent that stay.
    """
    mine = _dataclass_arguments(child)
    theirs = [_dataclass_arguments(parent) for parent in parents]
    known = [arguments for arguments in (mine, *theirs) if arguments is not None]
    if not known:
        return
    for parent, name, arguments in zip(parents, names, theirs, strict=True):
        fields = [m for m in parent.members if isinstance(m.node, ast.AnnAssign) and "ClassVar" not in m.text.text]
        if arguments is None and fields:
            message = f"`{name}` is no dataclass, but would become one here, and `{fields[0].name}` its field"
            raise CompileError(_of_header(child, message, f"make `{name}` a dataclass too"))
        if arguments is not None and arguments != known[0]:
            message = (
                f"`{name}` is a dataclass with {_told(arguments)}, and here it would be one with {_told(known[0])}"
            )
            raise CompileError(_of_header(child, message, "give both the same arguments"))
    own = {key for member in child.members for key in member.names}
    for index, (parent, name) in enumerate(zip(parents, names, strict=True)):
        for member in parent.members:
            first = next((i for i in range(index) if member.name in above[i]), None)
            if isinstance(member.node, ast.AnnAssign) and first is not None and member.name not in own:
                message = f"a dataclass takes `{member.name}` from `{names[first]}`, a class from `{name}`"
                raise CompileError(_of_header(child, message, f"write `{member.name}` here too"))
        own |= {key for member in parent.members for key in member.names}


def is_dataclass(decorator: str) -> bool:
    return decorator.partition("(")[0].rpartition(".")[2] == "dataclass"


def _dataclass_arguments(shape: Shape) -> set[str] | None:
    """The arguments of the class's dataclass decorator; None where it has none."""
    for decorator in shape.decorators:
        if is_dataclass(decorator.text):
            call = ast.parse(decorator.text, mode="eval").body
            return {ast.unparse(keyword) for keyword in getattr(call, "keywords", ())}
    return None


def _told(arguments: set[str]) -> str:
    return " and ".join(f"`{argument}`" for argument in sorted(arguments)) or "no arguments"


def _of_header(child: Shape, message: str, remedy: str) -> Diagnostic:
    header = child.header
    whole = ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=len(header.text.encode()))
    return at(header, whole, "UB013", message, remedy)


def _class_level(member: Member) -> Iterator[ast.Name]:
    """The names that are looked up in the class body when it is executed; an accessor names its own property."""
    for use in executed_names(member.node):
        if use.id != member.name.partition(".")[0] or "." not in member.name:
            yield use
