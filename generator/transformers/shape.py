"""A class taken apart into its header, docstrings, attributes and methods, and put together again."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..extents import Extent, extents, first_line
from ..text import Origin, Rows, Text, concatenate, join
from . import lexical
from .renaming import View
from .source import Statement

Rename = Callable[[str], str]


def renamed(text: Text, change: Rename | None) -> Text:
    """The text in other words, on the same lines."""
    return Text(change(text.text), text.origins) if change else text


@dataclass(slots=True)
class Piece:
    """A statement of a method's block, as text, with what the splicing of `super()` asks of it."""

    text: Text  # whole lines: the lead, the statement, the comments that end it
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
    lead: Text
    decorators: Text  # whole lines
    gap: Text  # comment lines between the decorators and the `def`
    opening: Text  # "    def name("
    parameters: Text
    returns: Text | None
    block: Text  # from behind the colon
    node: ast.FunctionDef | ast.AsyncFunctionDef
    home: Tree
    change: Rename | None

    def pieces(self) -> tuple[Text, list[Piece], Text]:
        """What stands behind the colon, the statements of the block, and the comments that end it."""
        return self.home.pieces(self.node, self.change)

    def render(self) -> Text:
        returns: list[Text | str] = [" -> ", self.returns] if self.returns is not None else []
        head = [self.lead, self.decorators, self.gap, self.opening, self.parameters]
        return concatenate([*head, ")", *returns, ":", self.block])


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
    origin: Origin  # of its header
    lead: Text
    decorators: Text
    gap: Text
    bases: list[str]
    keywords: list[str]
    docstrings: list[Text] = field(default_factory=list)
    attributes: dict[str, Text] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)
    removals: set[str] = field(default_factory=set)  # attributes that are `AttributeError(…)`
    notes: list[Note] = field(default_factory=list)

    def render(self) -> Text:
        arguments = ", ".join([*self.bases, *self.keywords])
        head = f"class {self.name}({arguments}):" if arguments else f"class {self.name}:"
        body = [*self.docstrings, *self.attributes.values(), *(method.render() for method in self.methods.values())]
        rows = body or [Text("    pass", (self.origin,))]
        return join([concatenate([self.lead, self.decorators, self.gap, Text(head, (self.origin,))]), *rows])


NOTHING = Text("", (Origin("", 0),))


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

    def slice(self, start: int, end: int) -> Text:
        """The text between two offsets of the file, as the view shows it."""
        return self.view.slice(start, end)

    def of(self, node: ast.expr | ast.arg) -> str:
        start, end = self.rows.span(node)
        return self.view.text(self.base + start, self.base + end)

    def shape(self, rename: Rename | None = None) -> Shape:
        """The class in pieces, each passed through `rename`."""
        change: Rename = rename or (lambda text: text)
        node = self.node
        decorators, gap = self._decorators(node, rename)
        lead = renamed(self.slice(self.statement.lead, self.statement.start), rename)
        bases = [change(self.of(base)) for base in node.bases]
        keywords = [
            f"{self.view.word(k.arg)}={change(self.of(k.value))}" if k.arg else f"**{change(self.of(k.value))}"
            for k in node.keywords
        ]
        rows = self.view.source.rows
        origin = rows.origins[rows.line(self.base + self.rows.start(node.lineno)) - 1]
        shape = Shape(self.view.word(node.name), origin, lead, decorators, gap, bases, keywords)
        for extent in self.members:
            self._member(shape, extent, rename)
        return shape

    def _member(self, shape: Shape, extent: Extent, change: Rename | None) -> None:
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
        text = renamed(self.slice(extent.lead, extent.end), change)
        if is_triple(self.view.text(extent.start, extent.end), node):
            shape.docstrings.append(text)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = self.view.word(node.targets[0].id)
            shape.attributes[name] = text
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "AttributeError":
                shape.removals.add(name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            shape.attributes[self.view.word(node.target.id)] = text

    def _decorators(
        self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, change: Rename | None
    ) -> tuple[Text, Text]:
        """The lines of the decorators, and those between them and the definition."""
        if not node.decorator_list:
            return NOTHING, NOTHING
        last = node.decorator_list[-1].end_lineno or 0
        start, end = self.rows.start(first_line(node)), self.rows.start(last + 1)
        definition = self.rows.start(node.lineno)
        decorators = self.slice(self.base + start, self.base + end)
        return renamed(decorators, change), renamed(self.slice(self.base + end, self.base + definition), change)

    def method(self, extent: Extent, node: ast.FunctionDef | ast.AsyncFunctionDef, change: Rename | None) -> Method:
        text = self.view.source.text
        decorators, gap = self._decorators(node, change)
        start = self.base + self.rows.start(node.lineno)
        opening = text.index("(", start) + 1
        closing = _find(text, opening, ")")
        returns = None
        if node.returns:
            first, last = self.rows.span(node.returns)
            returns = renamed(self.slice(self.base + first, self.base + last), change)
        after = self.colon(self.base + self.rows.span(node.returns)[1] if node.returns else closing + 1) + 1
        block = self.slice(after, extent.end)
        if first_line(node.body[0]) == self._line(after):
            margin = Text(f"\n{' ' * (node.col_offset + 4)}", block.origins[:1] * 2)
            block = concatenate([margin, block.slice(len(block.text) - len(block.text.lstrip()), len(block.text))])
        return Method(
            self.view.word(node.name),
            renamed(self.slice(extent.lead, extent.start), change),
            decorators,
            gap,
            renamed(self.slice(start, opening), change),
            renamed(self.slice(opening, closing), change),
            returns,
            renamed(block, change),
            node,
            self,
            change,
        )

    def _line(self, offset: int) -> int:
        return self.code.count("\n", 0, offset - self.base) + 1

    def pieces(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, change: Rename | None
    ) -> tuple[Text, list[Piece], Text]:
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
        header = self.slice(colon + 1, colon + 1 if one_line else self.base + self.rows.end(line))
        limit = self._block_end(node)
        footer = renamed(self.slice(end, limit), change) if limit > end else NOTHING
        return renamed(header, change), found, footer

    def _block_end(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        return next((extent.end for extent in self.members if extent.node is node), 0)

    def _piece(self, extent: Extent, start: int, margin: str, change: Rename | None) -> Piece:
        node = extent.node
        lead = NOTHING if margin else renamed(self.slice(extent.lead, extent.start), change)
        code = renamed(self.slice(start, extent.end), change)
        piece = Piece(concatenate([lead, margin, code]), code.text, node=node, offset=start)
        if isinstance(node, ast.Assign) and not extent.others:
            piece.target = self._words(node.targets[0], change)
        elif isinstance(node, ast.AnnAssign) and not extent.others:
            piece.annotated = self._words(node.target, change)
        elif isinstance(node, ast.Delete) and not extent.others and len(node.targets) == 1:
            piece.deleted = self._words(node.targets[0], change)
        piece.is_string = is_triple(code.text, node)
        return piece

    def _words(self, node: ast.expr, change: Rename | None) -> str:
        return change(self.of(node)) if change else self.of(node)


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


def split_arguments(text: Text) -> list[Text]:
    """The parts of an argument list, each with its comma and the comments on the rest of that line."""
    found: list[Text] = []
    start = 0
    closed = text.text + ")"
    while True:
        comma = _find(closed, start, ",)")
        if closed[comma] == ")":
            last = text.slice(start, len(text.text))
            return [*found, last] if last.text.strip() else found
        rest = re.compile(r"[ \t]*(?:#[^\n]*\n)?").match(text.text, comma + 1)
        end = rest.end() if rest else comma + 1
        found.append(text.slice(start, end))
        start = end
