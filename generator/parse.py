"""Stage 2: a source file becomes a `Module`: its definitions with their comments, its imports, its `__all__`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from .diagnostics import CompileError, Diagnostic, at, point, syntax_error
from .extents import comments_below, extents
from .import_statements import Import, read_imports
from .scopes import Scoped, called_names, executed_names, scoped_names
from .text import Origin, Text

Kind = Literal["class", "function", "constant"]
TOO_DEEP = "an expression is nested too deeply to be read"


@dataclass(frozen=True)
class Definition:
    """A top-level class, function or assignment; its text starts with the comments directly above it."""

    kind: Kind
    names: tuple[str, ...]  # more than one for `A = B = …` and `A, B = …`
    text: Text
    mentions: tuple[ast.Name, ...] = ()  # module-level names that it means in strings: those of a kernel table's rows
    is_role: bool = False  # a class of core that becomes one with the only class that inherits from it

    @property
    def name(self) -> str:
        return self.names[0]

    @cached_property
    def node(self) -> ast.stmt:
        return self.text.tree.body[0]

    @cached_property
    def scoped(self) -> tuple[Scoped, ...]:
        """Every name in it that means a module-level name, with the names that are bound around it."""
        return tuple(scoped_names(self.text.tree))

    @cached_property
    def uses(self) -> tuple[ast.Name, ...]:
        """The module-level names that it reads."""
        found = (name for name, _ in self.scoped if name.id not in self.names or not isinstance(name.ctx, ast.Store))
        return (*found, *self.mentions)

    @cached_property
    def calls(self) -> tuple[str, ...]:
        """The module-level names that are called when it is executed."""
        return tuple(dict.fromkeys(use.id for use in called_names(self.node)))

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The module-level names that must be defined before it is."""
        return tuple(dict.fromkeys(use.id for use in executed_names(self.node)))


@dataclass(frozen=True)
class Module:
    """A parsed source file. `path` is relative, with forward slashes."""

    path: str
    text: Text
    header: Text | None  # the comments above the first statement
    docstring: Text | None
    definitions: dict[str, Definition]
    imports: dict[str, tuple[Import, ...]]
    exports: tuple[str, ...] | None  # `__all__`
    families: tuple[str, ...] = ()  # `__families__`: the class prefixes of sub-families

    @property
    def stem(self) -> str:
        return self.path.rpartition("/")[2].removesuffix(".py")


def read_source(file: Path, path: str) -> str:
    """The text of a file; refused when it cannot be read, is not UTF-8 or has carriage returns."""
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise CompileError(
            Diagnostic(
                "UB002", f"cannot read the file: {error.strerror}", "check that it exists and is readable", path
            )
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise CompileError(Diagnostic("UB002", message, "save the file as UTF-8", path, line, column)) from None
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        message = "the file has carriage returns (CRLF line ends)"
        raise CompileError(Diagnostic("UB002", message, "save it with LF line ends", path, line, 1))
    return text.removeprefix("\ufeff").rstrip("\n")


def parse_module(source: str, path: str, origins: tuple[Origin, ...] = ()) -> Module:
    """The module that `source` holds; every refused top-level statement is reported at once.

    `origins` say where each line comes from, if it is not the line of that number of the file.
    """
    text = Text(source, origins) if origins else Text.from_file(source, path)
    try:
        tree = text.tree
    except SyntaxError as error:
        raise CompileError(syntax_error(error, source, path)) from None
    except RecursionError:
        raise CompileError(Diagnostic("UB001", TOO_DEEP, "break it into several statements", path)) from None
    problems = [*_check_lines(text), *_check_names(text)]
    definitions: dict[str, Definition] = {}
    imports: dict[str, tuple[Import, ...]] = {}
    docstring: Text | None = None
    exports: tuple[str, ...] | None = None
    families: tuple[str, ...] = ()
    for number, (node, piece) in enumerate(statements(text, tree.body)):
        if number == 0 and is_string(node):
            docstring = text.of(node)
            continue
        found = read_imports(text, node, problems)
        if found is not None:
            for entry in found:
                imports[entry.name] = (*imports.get(entry.name, ()), entry)
        elif assigned_names(node) == ("__all__",):
            exports = _strings(text, node, "__all__", '["MyModel"]', problems)
        elif assigned_names(node) == ("__families__",):
            families = _strings(text, node, "__families__", '("MyText", "MyVision")', problems)
        elif definition := _definition(node, piece):
            for name in definition.names:
                if name in definitions:
                    message = f"`{name}` is defined twice in this file"
                    problems.append(at(text, node, "UB009", message, "keep one of the two definitions"))
                definitions[name] = definition
        else:
            problems.append(
                at(text, node, "UB003", "this statement is not allowed at the top level of a definition",
                   "only imports, classes, functions, assignments and `if TYPE_CHECKING:` imports are; "
                   "move it into a function")
            )  # fmt: skip
    if problems:
        raise CompileError(*problems)
    return Module(path, text, _header(text, tree), docstring, definitions, imports, exports, families)


def statements(text: Text, body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, Text]]:
    """The statements of a block with their full lines: the comments directly above, and after the last one those below it."""
    last = len(text.starts)
    found = extents(text, body, 1, last)
    for extent in found:
        start, end = text.line(extent.start), text.line(extent.end)
        while start > 1 and text.start(start - 1) >= extent.lead and text.row(start - 1).lstrip().startswith("#"):
            start -= 1
        if extent is found[-1]:
            end = comments_below(text, end, last, extent.node.col_offset)
        yield extent.node, text.lines(start, end)


def _check_lines(text: Text) -> Iterator[Diagnostic]:
    """Flattening moves whole lines and shifts them by columns, so each statement needs lines and spaces of its own."""
    if ";" not in text.text and "\t" not in text.text:
        return
    pending: list[ast.AST] = [text.tree]
    for node in pending:
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            block = getattr(node, field, ())
            pending += block
            for above, statement in pairwise(block if field != "cases" else ()):
                if statement.lineno == above.end_lineno:
                    message, remedy = "two statements stand on one line", "put each on a line of its own"
                    yield at(text, statement, "UB003", message, remedy)
        if isinstance(node, ast.stmt) and "\t" in text.row(node.lineno)[: node.col_offset]:
            start = text.offset(node.lineno, 0)
            yield point(text, start, 1, "UB003", "the line is indented with a tab", "indent it with spaces")
            return


def _check_names(text: Text) -> Iterator[Diagnostic]:
    """Names that Python mangles with that of the class that they stand in, each once."""
    names = {name for name in re.findall(r"\b__\w+", text.text) if not name.endswith("__")}
    classes = [node for node in text.tree.body if isinstance(node, ast.ClassDef)] if names else []
    for node in (inner for outer in classes for inner in ast.walk(outer)):
        for field in ("id", "attr", "name", "arg"):
            name = str(getattr(node, field, ""))
            if name in names:
                names.remove(name)
                message = f"`{name}` is mangled with the name of its class, which flattening changes"
                yield at(text, node, "UB013", message, f"call it `{name[1:]}`")


def is_string(node: ast.AST) -> bool:
    """Whether a statement is a string and nothing else, as docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _definition(node: ast.stmt, piece: Text) -> Definition | None:
    if isinstance(node, ast.ClassDef):
        return Definition("class", (node.name,), piece)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return Definition("function", (node.name,), piece)
    targets = assigned_names(node)
    return Definition("constant", targets, piece) if targets else None


def assigned_names(node: ast.stmt) -> tuple[str, ...]:
    """The plain names that an assignment binds; empty for anything else (`a.b = …`, `a[0] = …`, `a += …`)."""
    if isinstance(node, ast.AnnAssign):
        return (node.target.id,) if isinstance(node.target, ast.Name) and node.value is not None else ()
    if not isinstance(node, ast.Assign):
        return ()
    names: list[str] = []
    for target in node.targets:
        parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        for part in parts:
            if not isinstance(part, ast.Name):
                return ()
            names.append(part.id)
    return tuple(names)


def _strings(text: Text, node: ast.stmt, name: str, example: str, problems: list[Diagnostic]) -> tuple[str, ...]:
    try:
        value = ast.literal_eval(getattr(node, "value", node))
    except ValueError:
        value = None
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        remedy = f"write it as a list of strings: `{name} = {example}`"
        problems.append(at(text, node, "UB003", f"`{name}` is not a plain list of strings", remedy))
        return ()
    return tuple(value)


def _header(text: Text, tree: ast.Module) -> Text | None:
    first = tree.body[0].lineno if tree.body else text.text.count("\n") + 2
    rows = text.text.split("\n")[: first - 1]
    last = max((number for number, row in enumerate(rows, start=1) if row.startswith("#")), default=0)
    return text.lines(1, last) if last else None
