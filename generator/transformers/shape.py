"""A class taken apart into its header, docstrings, attributes and methods, and put together again."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..extents import Extent, extents, first_line
from ..text import Rows
from . import lexical
from .renaming import View
from .source import Statement

Rename = Callable[[str], str]


@dataclass(slots=True)
class Piece:
    """A statement of a method's block, as text, with what the splicing of `super()` asks of it."""

    text: str  # whole lines: the lead, the statement, the comments that end it
    code: str  # the statement alone
    target: str | None = None  # of a plain assignment with `=`: the text of its first target
    annotated: str | None = None  # of an annotated assignment
    deleted: str | None = None  # of `del x`
    is_string: bool = False  # a triple-quoted statement
    node: ast.stmt | None = None
    offset: int = 0  # where `code` begins in its file


@dataclass(slots=True)
class Method:
    """A method in pieces; joined in this order they are its text."""

    name: str
    lead: str
    decorators: str  # whole lines
    gap: str  # comment lines between the decorators and the `def`
    opening: str  # "    def name("
    parameters: str
    returns: str | None
    block: str  # from behind the colon
    node: ast.FunctionDef | ast.AsyncFunctionDef
    home: Tree
    change: Rename

    def pieces(self) -> tuple[str, list[Piece], str]:
        """What stands behind the colon, the statements of the block, and the comments that end it."""
        return self.home.pieces(self.node, self.change)

    def render(self) -> str:
        returns = f" -> {self.returns}" if self.returns is not None else ""
        return f"{self.lead}{self.decorators}{self.gap}{self.opening}{self.parameters}){returns}:{self.block}"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the conversion did which its writer may not have meant; `offset` is one of the definition's file."""

    code: str
    offset: int
    message: str


@dataclass(slots=True)
class Shape:
    """A class in pieces."""

    name: str
    lead: str
    decorators: str
    gap: str
    bases: list[str]
    keywords: list[str]
    docstrings: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)
    removals: set[str] = field(default_factory=set)  # attributes that are `AttributeError(…)`
    notes: list[Note] = field(default_factory=list)

    def render(self) -> str:
        arguments = ", ".join([*self.bases, *self.keywords])
        head = f"class {self.name}({arguments}):" if arguments else f"class {self.name}:"
        body = [*self.docstrings, *self.attributes.values(), *(method.render() for method in self.methods.values())]
        rows = "\n".join(body) if body else "    pass"
        return f"{self.lead}{self.decorators}{self.gap}{head}\n{rows}"


class Tree:
    """The syntax tree of one class of a file; positions are turned into offsets of the file."""

    def __init__(self, view: View, statement: Statement) -> None:
        self.view = view
        self.statement = statement
        text = view.source.text
        self.base = statement.start
        self.code = text[statement.start : statement.end]
        self.rows = Rows(self.code)
        node = ast.parse(self.code).body[0]
        assert isinstance(node, ast.ClassDef)
        self.node = node
        header = self.colon(self.base + self.rows.offset(*_header_end(node)))
        self.body_line = self.code.count("\n", 0, header - self.base) + 1
        self.members = self.block(node.body, self.body_line)

    def block(self, body: list[ast.stmt], header_line: int, last: int | None = None) -> list[Extent]:
        """The statements of a block; the lead of the first begins below its header's line."""
        first = min(header_line + 1, first_line(body[0]))
        found = extents(self.rows, body, first, last or len(self.rows.starts))
        for extent in found:
            extent.lead += self.base
            extent.start += self.base
            extent.end += self.base
        return found

    def colon(self, offset: int) -> int:
        """Where the colon that ends a header stands, looking from an offset of the file."""
        return _find(self.view.source.text, offset, ":")

    def slice(self, start: int, end: int) -> str:
        """The text between two offsets of the file, as the view shows it."""
        return self.view.text(start, end)

    def of(self, node: ast.expr | ast.arg) -> str:
        start, end = self.rows.span(node)
        return self.view.text(self.base + start, self.base + end)

    def shape(self, rename: Rename | None = None) -> Shape:
        """The class in pieces, each passed through `rename`."""
        change: Rename = rename or (lambda text: text)
        node = self.node
        decorators, gap = self._decorators(node, change)
        lead = change(self.slice(self.statement.lead, self.statement.start))
        bases = [change(self.of(base)) for base in node.bases]
        keywords = [
            f"{self.view.word(k.arg)}={change(self.of(k.value))}" if k.arg else f"**{change(self.of(k.value))}"
            for k in node.keywords
        ]
        shape = Shape(self.view.word(node.name), lead, decorators, gap, bases, keywords)
        for extent in self.members:
            self._member(shape, extent, change)
        return shape

    def _member(self, shape: Shape, extent: Extent, change: Rename) -> None:
        node = extent.node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            method = self.method(extent, node, change)
            key = method.name
            if key in shape.methods:
                first = node.decorator_list[0] if node.decorator_list else None
                if isinstance(first, ast.Name) and first.id == "property":
                    shape.methods = {
                        (f"{key}_setter" if name == key else name): value for name, value in shape.methods.items()
                    }
                else:
                    key = f"{key}_setter"
            shape.methods[key] = method
            return
        text = change(self.slice(extent.lead, extent.end))
        if is_triple(self.slice(extent.start, extent.end), node):
            shape.docstrings.append(text)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = self.view.word(node.targets[0].id)
            shape.attributes[name] = text
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "AttributeError":
                shape.removals.add(name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            shape.attributes[self.view.word(node.target.id)] = text

    def _decorators(
        self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, change: Rename
    ) -> tuple[str, str]:
        """The lines of the decorators, and those between them and the definition."""
        if not node.decorator_list:
            return "", ""
        last = node.decorator_list[-1].end_lineno or 0
        start, end = self.rows.start(first_line(node)), self.rows.start(last + 1)
        definition = self.rows.start(node.lineno)
        decorators = self.slice(self.base + start, self.base + end)
        return change(decorators), change(self.slice(self.base + end, self.base + definition))

    def method(self, extent: Extent, node: ast.FunctionDef | ast.AsyncFunctionDef, change: Rename) -> Method:
        text = self.view.source.text
        decorators, gap = self._decorators(node, change)
        start = self.base + self.rows.start(node.lineno)
        opening = text.index("(", start) + 1
        closing = _find(text, opening, ")")
        returns = change(self.of(node.returns)) if node.returns else None
        after = self.colon(self.base + self.rows.span(node.returns)[1] if node.returns else closing + 1) + 1
        block = self.slice(after, extent.end)
        if first_line(node.body[0]) == self._line(after):
            block = f"\n{' ' * (node.col_offset + 4)}{block.lstrip()}"
        return Method(
            self.view.word(node.name),
            change(self.slice(extent.lead, extent.start)),
            decorators,
            gap,
            change(self.slice(start, opening)),
            change(self.slice(opening, closing)),
            returns,
            change(block),
            node,
            self,
            change,
        )

    def _line(self, offset: int) -> int:
        return self.code.count("\n", 0, offset - self.base) + 1

    def pieces(self, node: ast.FunctionDef | ast.AsyncFunctionDef, change: Rename) -> tuple[str, list[Piece], str]:
        """What stands behind a method's colon, the statements of its block, and the comments that end it."""
        text = self.view.source.text
        opening = text.index("(", self.base + self.rows.start(node.lineno)) + 1
        closing = _find(text, opening, ")")
        colon = self.colon(self.base + self.rows.span(node.returns)[1] if node.returns else closing + 1)
        line = self._line(colon)
        one_line = first_line(node.body[0]) == line
        found = []
        block = self.block(node.body, line)
        end = colon + 1
        for number, extent in enumerate(block):
            start = self.base + self.rows.span(node.body[0])[0] if one_line and not number else extent.start
            margin = " " * (node.col_offset + 4) if one_line and not number else ""
            found.append(self._piece(extent, start, margin, change))
            end = extent.end
        header = "" if one_line else change(self.slice(colon + 1, self.base + self.rows.end(line)))
        limit = self._block_end(node)
        return header, found, change(self.slice(end, limit)) if limit > end else ""

    def _block_end(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        return next((extent.end for extent in self.members if extent.node is node), 0)

    def _piece(self, extent: Extent, start: int, margin: str, change: Rename) -> Piece:
        node = extent.node
        lead = "" if margin else self.slice(extent.lead, extent.start)
        code = change(self.slice(start, extent.end))
        piece = Piece(change(lead) + margin + code, code, node=node, offset=start)
        if isinstance(node, ast.Assign) and not extent.others:
            piece.target = change(self.of(node.targets[0]))
        elif isinstance(node, ast.AnnAssign) and not extent.others:
            piece.annotated = change(self.of(node.target))
        elif isinstance(node, ast.Delete) and not extent.others and len(node.targets) == 1:
            piece.deleted = change(self.of(node.targets[0]))
        piece.is_string = is_triple(code, node)
        return piece


def is_triple(code: str, node: ast.stmt) -> bool:
    """Whether a statement is a string in triple double quotes."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, (ast.Constant, ast.JoinedStr))
        and re.match(r'\s*[rRbBuUfF]{0,2}"""', code) is not None
    )


def _header_end(node: ast.ClassDef) -> tuple[int, int]:
    """The position behind the last expression of a class header, or behind the keyword `class`."""
    last = max(
        [*node.bases, *(keyword.value for keyword in node.keywords)],
        key=lambda part: (part.end_lineno or 0, part.end_col_offset or 0),
        default=None,
    )
    if last is None:
        return node.lineno, node.col_offset
    return last.end_lineno or 0, last.end_col_offset or 0


def _find(text: str, offset: int, signs: str) -> int:
    """The next of some signs outside brackets, strings and comments; a bracket that closes one opened before counts for nothing."""
    depth = 0
    position = offset
    while True:
        match = _SIGNS.search(text, position)
        assert match, "the source parses, so its brackets are closed"
        here = match.start()
        position = here + 1
        if match[0] in "#\"'":
            found: list[lexical.Span] = []
            position = lexical.read(text, here, found)
        elif depth == 0 and match[0] in signs:
            return here
        elif match[0] in "([{":
            depth += 1
        elif match[0] in ")]}":
            depth = max(0, depth - 1)


_SIGNS = re.compile("[][(){},:#\"']")


def split_arguments(text: str) -> list[str]:
    """The parts of an argument list, each with its comma and the comments on the rest of that line."""
    found: list[str] = []
    start = 0
    closed = text + ")"
    while True:
        comma = _find(closed, start, ",)")
        if closed[comma] == ")":
            last = text[start:]
            return [*found, last] if last.strip() else found
        rest = re.compile(r"[ \t]*(?:#[^\n]*\n)?").match(text, comma + 1)
        end = rest.end() if rest else comma + 1
        found.append(text[start:end])
        start = end
