"""A source file taken apart: its top-level statements with the comments above them, its imports, its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..diagnostics import CompileError, syntax_error
from ..extents import Extent, extents, first_line
from ..parse import is_string
from ..scopes import bound_names
from ..text import Origin, Text
from . import lexical

_FROM = re.compile(r"^([ \t]*)from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|(?:[^\n#\\]|\\\n)*)", re.MULTILINE)


SHARED = "a statement on a line with another"


@dataclass(slots=True)
class Alias:
    """One imported name, as written and as bound."""

    name: str
    bound: str | None  # after `as`
    line: int = 0  # where it is written

    @property
    def local(self) -> str:
        """What the importing module calls it; for `import a.b` the dotted name, as it is written where it is used."""
        return self.bound or self.name

    def __str__(self) -> str:
        return f"{self.name} as {self.bound}" if self.bound else self.name


@dataclass(slots=True)
class Import:
    """An import statement; `module` is empty for `import x`."""

    lead: str
    level: int
    module: str | None  # None: `import x`
    aliases: list[Alias]
    trail: str  # the comment on its last line
    origin: Origin | None = None  # of its first line

    def render(self, aliases: list[Alias]) -> str:
        """The statement with some of its names, on one line."""
        names = ", ".join(map(str, aliases))
        head = "import " if self.module is None else f"from {'.' * self.level}{self.module} import "
        return f"{head}{names}{self.trail}"


@dataclass(slots=True)
class Guard:
    """A top-level `if` with imports in its first branch."""

    lead: str
    test: str
    imports: list[Import]
    rest: str  # `else` and `elif` branches, as they stand


@dataclass(slots=True)
class Statement:
    """A top-level definition or assignment: where it stands, and in which file."""

    kind: str  # class, function, assignment, exports, getattr, item
    name: str
    lead: int
    start: int
    end: int
    source: Source
    _words: tuple[frozenset[str], frozenset[str]] | None = None

    @property
    def words(self) -> frozenset[str]:
        """The words of its code, less those of absolute imports."""
        return self._read()[0]

    @property
    def exempt(self) -> frozenset[str]:
        """The words of absolute imports in it, which are never renamed."""
        return self._read()[1]

    def _read(self) -> tuple[frozenset[str], frozenset[str]]:
        if self._words is None:  # of a large parent only some statements are needed
            self._words = self.source.words(self.start, self.end)
        return self._words


@dataclass(slots=True)
class Dropped:
    """A top-level statement that no output will have."""

    line: int
    what: str
    names: frozenset[str] = frozenset()  # what it binds


class Source:
    """A parsed file. `path` is how messages name it."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.spans = lexical.spans(text)

    @cached_property
    def index(self) -> Index:
        """Its top-level statements; refused where it does not parse. Which parents it has can be read without."""
        return Index(self)

    @property
    def statements(self) -> dict[str, Statement]:
        return self.index.statements

    @property
    def imports(self) -> list[Import | Guard]:
        return self.index.imports

    @property
    def dropped(self) -> list[Dropped]:
        return self.index.dropped

    @property
    def dropped_names(self) -> set[str]:
        """What the statements bind that no output will have."""
        return {name for dropped in self.dropped for name in dropped.names}

    @cached_property
    def zones(self) -> list[tuple[int, int]]:
        """The absolute `from` imports, which renaming leaves alone."""
        return [
            (match.end(1), match.end())
            for match in _FROM.finditer(self.text)
            if not match[2] and lexical.inside(self.spans, match.end(1)) is None
        ]

    @cached_property
    def lowered(self) -> str:
        lowered = self.text.lower()
        return lowered if len(lowered) == len(self.text) else self.text.translate(_LOWER)

    @cached_property
    def rows(self) -> Text:
        return Text.from_file(self.text, self.path)

    def from_imports(self) -> Iterator[tuple[int, str, list[str], int]]:
        """Level, module, names and offset of every `from` import at any depth."""
        for match in _FROM.finditer(self.text):
            if lexical.inside(self.spans, match.end(1)) is None:
                names = re.sub(r"#[^\n]*|[()\\]", " ", match[4])
                yield (
                    len(match[2]),
                    match[3],
                    [words[0] for piece in names.split(",") if (words := piece.split())],
                    match.end(1),
                )

    def words(self, start: int, end: int) -> tuple[frozenset[str], frozenset[str]]:
        """The words of the code between two offsets: those that renaming touches, and those of absolute imports."""
        inner = [zone for zone in self.zones if start <= zone[0] < end]
        if not inner:
            return frozenset(lexical.identifiers(self.text, self.spans, start, end)), frozenset()
        plain: set[str] = set()
        exempt: set[str] = set()
        position = start
        for first, last in inner:
            plain |= lexical.identifiers(self.text, self.spans, position, first)
            exempt |= lexical.identifiers(self.text, self.spans, first, last)
            position = last
        return frozenset(plain | lexical.identifiers(self.text, self.spans, position, end)), frozenset(exempt)


class Index:
    """The top level of a file: definitions by name, imports in order, and what no output will have."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.statements: dict[str, Statement] = {}
        self.items: dict[str, list[str]] = {}  # `NAME[...] = v`: the statements that belong to NAME
        self.imports: list[Import | Guard] = []
        self.dropped: list[Dropped] = []
        self.repeated: list[Statement] = []  # definitions of which a later one of the same name is left
        self.header = source.text
        try:
            tree = ast.parse(source.text)
        except SyntaxError as error:
            raise CompileError(syntax_error(error, source.text, source.path)) from None
        rows = source.rows
        first = first_line(tree.body[0]) if tree.body else 1
        if tree.body:
            self.header = self.text[: rows.start(first)]
        for extent in extents(rows, tree.body, first, len(rows.starts)):
            self._statement(rows, extent)
            for other in extent.others:
                self._drop(other, SHARED)

    def _statement(self, rows: Text, extent: Extent) -> None:
        node = extent.node
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.imports.append(read_import(rows, extent))
        elif isinstance(node, ast.If):
            self._guard(rows, extent, node)
        elif isinstance(node, ast.ClassDef):
            self._add("class", node.name, extent)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._add("function", node.name, extent)
        elif isinstance(node, ast.Assign) and extent.others:
            self._drop(node, SHARED)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                kind = {"__all__": "exports", "__getattr__": "getattr"}.get(target.id, "assignment")
                self._add(kind, target.id, extent)
            elif isinstance(target, (ast.Subscript, ast.Attribute)) and isinstance(target.value, ast.Name):
                name = self.text[slice(*rows.span(target))]
                self._add("item", name, extent)
                self.items.setdefault(target.value.id, []).append(name)
            else:
                self._drop(node, "an assignment to several names")
        elif not is_string(node):
            self._drop(node, _description(node))

    def _drop(self, node: ast.stmt, what: str) -> None:
        self.dropped.append(Dropped(node.lineno, what, frozenset(bound_names([node]))))

    def _add(self, kind: str, name: str, extent: Extent) -> None:
        if name in self.statements:
            self.repeated.append(self.statements[name])
        self.statements[name] = Statement(kind, name, extent.lead, extent.start, extent.end, self.source)

    def _guard(self, rows: Text, extent: Extent, node: ast.If) -> None:
        inner = extents(rows, node.body, node.test.end_lineno or node.lineno, len(rows.starts))
        imports = []
        for piece in inner:
            if isinstance(piece.node, (ast.Import, ast.ImportFrom)):
                piece.lead = max(piece.lead, rows.start((node.test.end_lineno or node.lineno) + 1))
                imports.append(read_import(rows, piece))
            else:
                self._drop(piece.node, "a statement that is not an import, under `if`")
        if not imports:
            for other in node.orelse:
                self._drop(other, "a statement under `else`")
            return
        rest = ""
        if node.orelse:
            end = node.body[-1].end_lineno or node.lineno
            rest = self.text[rows.start(end + 1) : extent.end]
        test = self.text[slice(*rows.span(node.test))]
        self.imports.append(Guard(self.text[extent.lead : extent.start], test, imports, rest))


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def read_import(rows: Text, extent: Extent) -> Import:
    """An import statement with the lines above it and the comment behind it."""
    node = extent.node
    assert isinstance(node, (ast.Import, ast.ImportFrom)) and node.end_lineno and node.end_col_offset is not None
    aliases = [Alias(alias.name, alias.asname, alias.lineno) for alias in node.names]
    trail = rows.text[rows.offset(node.end_lineno, node.end_col_offset) : rows.end(node.end_lineno)].rstrip()
    lead = rows.text[extent.lead : extent.start]
    trail = trail if trail.lstrip().startswith("#") else ""
    origin = rows.origins[node.lineno - 1]
    if isinstance(node, ast.Import):
        return Import(lead, 0, None, aliases, trail, origin)
    return Import(lead, node.level, node.module or "", aliases, trail, origin)


def _description(node: ast.stmt) -> str:
    words = {
        ast.AnnAssign: "an annotated assignment",
        ast.AugAssign: "an augmented assignment",
        ast.Assign: "an assignment to several names",
        ast.Try: "a `try` statement",
        ast.Expr: "an expression",
    }
    return words.get(type(node), f"a `{type(node).__name__.lower()}` statement")
