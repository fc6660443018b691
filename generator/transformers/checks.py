"""What is refused before a definition is converted: what would end in an undefined name or in no conversion at all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from ..diagnostics import CompileError, Diagnostic, nearest, point
from .library import Library
from .names import TYPES
from .parents import Parent, is_model_import
from .shape import Tree
from .source import Guard, Source

_MODEL_FILE = re.compile(rf"(?:{'|'.join(TYPES)})_\w+\Z")


def check_imports(library: Library, source: Source) -> None:
    """Refuse imports that the conversion cannot follow."""
    problems: list[Diagnostic] = []
    for level, module, names, offset in source.from_imports():
        problems += _check_import(library, source, level, module, names, offset)
    if problems:
        raise CompileError(*problems)


def missing_names(library: Library, source: Source, parents: dict[str, Parent]) -> dict[str, Diagnostic]:
    """The names imported from a parent that has no such name; an error where an output uses one."""
    found = {}
    for parent in parents.values():
        known = provided_names(library.source(parent.path))
        for name in parent.names:
            if name not in known:
                message = f"`{name}` is not in {library.shown(parent.path)}"
                remedy = nearest(name, known) or "import a class, a function or an assignment that the file defines"
                found[name] = _at_word(source, name, "UB005", message, remedy, parent.offset)
    return found


def _check_import(
    library: Library, source: Source, level: int, module: str, names: list[str], offset: int
) -> Iterable[Diagnostic]:
    if library.in_tree and level == 0 and module == "transformers":
        remedy = "import it from its module, as in `from ...utils import logging`"
        yield point(source.rows, offset, 4, "UB007", "an import from the package `transformers` itself", remedy)
    if level == 2 and "." not in module:
        for name in names:
            if _MODEL_FILE.match(name) and library.exists(f"{module}/{name}.py"):
                message = f"`{name}` is imported as a module, so nothing in it can be inherited"
                remedy = f"write `from ..{module}.{name} import …` with the names that are needed"
                yield point(source.rows, offset, 4, "UB007", message, remedy)
    if level == 2 and is_model_import(level, module) and ".modeling_" in f".{module.partition('.')[2]}":
        for name in names:
            if name.endswith("Config"):
                model = module.partition(".")[0]
                message = f"the configuration `{name}` is imported from a modeling file"
                remedy = f"write `from ..{model}.configuration_{model} import {name}`"
                yield point(source.rows, offset, 4, "UB007", message, remedy)


def provided_names(source: Source) -> set[str]:
    """Everything that a file defines or imports at its top level."""
    found = set(source.statements) | source.dropped_names
    for entry in source.imports:
        for inner in entry.imports if isinstance(entry, Guard) else [entry]:
            found |= {alias.bound or alias.name for alias in inner.aliases}
    return found


def check_class(source: Source, tree: Tree, origin: dict[str, Parent]) -> None:
    """Refuse a class with two parents, or two plain methods of one name."""
    node = tree.node
    inherited = [base for base in node.bases if isinstance(base, ast.Name) and base.id in origin]
    problems = []
    if len(inherited) > 1:
        first, second = (base.id for base in inherited[:2])
        message = f"`{node.name}` inherits from two classes of other models, `{first}` and `{second}`"
        remedy = "inherit from one of them, and write what the other one adds"
        problems.append(_at_node(source, tree, inherited[1], "UB013", message, remedy))
    seen: dict[str, ast.AST] = {}
    for member in node.body:
        if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if member.name in seen and not member.decorator_list and not _is_accessor(seen[member.name]):
                message, remedy = f"the method `{member.name}` is written twice", "keep one of the two"
                problems.append(_at_node(source, tree, member, "UB009", message, remedy))
            seen[member.name] = member
    if problems:
        raise CompileError(*problems)


def check_dropped(source: Source, words: set[str], defined: set[str]) -> None:
    """Refuse a definition whose outputs use a name that only a statement binds which no output has."""
    problems = []
    for dropped in source.dropped:
        missing = sorted(dropped.names & words - defined)
        if missing:
            message = f"{dropped.what} is left out of the outputs, which use `{missing[0]}`"
            remedy = "write `NAME = value` on a line of its own; imports unconditionally or under a plain `if`"
            row = source.rows.row(dropped.line)
            offset = source.rows.starts[dropped.line - 1] + len(row) - len(row.lstrip())
            problems.append(point(source.rows, offset, 1, "UB012", message, remedy))
    if problems:
        raise CompileError(*problems)


def _is_accessor(node: ast.AST) -> bool:
    return bool(getattr(node, "decorator_list", []))


def _at_node(
    source: Source, tree: Tree, node: ast.expr | ast.stmt, code: str, message: str, remedy: str
) -> Diagnostic:
    offset = tree.base + tree.rows.offset(node.lineno, node.col_offset)
    return point(source.rows, offset, len(getattr(node, "id", getattr(node, "name", " "))), code, message, remedy)


def _at_word(source: Source, word: str, code: str, message: str, remedy: str, start: int = 0) -> Diagnostic:
    match = re.compile(rf"\b{re.escape(word)}\b").search(source.text, start)
    return point(source.rows, match.start() if match else start, len(word), code, message, remedy)
