"""A source file taken apart: its top-level statements with the comments above them, its imports, its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..scopes import bound_names
from . import lexical

_FROM = re.compile(r"^([ \t]*)from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|(?:[^\n#\\]|\\\n)*)", re.MULTILINE)


class Rows:
    """Offsets of a text for positions as `ast` gives them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._ascii = text.isascii()

    def offset(self, line: int, column: int) -> int:
        """Offset of a line (from 1) and a column in UTF-8 bytes."""
        start = self.starts[line - 1]
        if self._ascii:
            return start + column
        row = self.text[start : self.end(line)]
        return start + (column if row.isascii() else len(row.encode()[:column].decode()))

    def start(self, line: int) -> int:
        """Offset of the first character of a line; the end of the text for the line after the last."""
        return self.starts[line - 1] if line <= len(self.starts) else len(self.text)

    def end(self, line: int) -> int:
        """Offset of the line's newline, or of the end of the text."""
        return self.starts[line] - 1 if line < len(self.starts) else len(self.text)

    def row(self, line: int) -> str:
        return self.text[self.starts[line - 1] : self.end(line)]

    def span(self, node: ast.expr | ast.arg) -> tuple[int, int]:
        """Offsets of an expression's first character and of the one after its last."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)


@dataclass(slots=True)
class Unit:
    """A statement with the lines that it owns: `lead` (blank and comment lines above), `start`, and `end` (its last newline)."""

    node: ast.stmt
    lead: int
    start: int
    end: int
    alone: bool  # whether no other statement stands on its lines


def units(rows: Rows, body: list[ast.stmt], first: int, last: int) -> list[Unit]:
    """The statements of a block; `first` is the line where the lead of the first begins, `last` the block's last line."""
    found: list[Unit] = []
    line = first
    for node in body:
        start = first_line(node)
        if found and start < line:
            found[-1].alone = False
            found[-1].end = max(found[-1].end, rows.end(_last_line(rows, node, last)))
            line = max(line, _last_line(rows, node, last) + 1)
            continue
        end = _last_line(rows, node, last)
        found.append(Unit(node, rows.start(line), rows.start(start), rows.end(end), True))
        line = end + 1
    return found


def first_line(node: ast.stmt) -> int:
    """The line that a statement starts on, its decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(decorators[0].lineno, node.lineno) if decorators else node.lineno


def last_suite(node: ast.AST) -> list[ast.stmt]:
    """The block that ends a compound statement; empty for a simple one."""
    for field in ("finalbody", "orelse", "handlers", "cases", "body"):
        value = getattr(node, field, None)
        if isinstance(value, list) and value:
            return value if isinstance(value[-1], ast.stmt) else last_suite(value[-1])
    return []


def _last_line(rows: Rows, node: ast.stmt, limit: int) -> int:
    """The last line of a statement, with the comments that end its block at the block's indentation or deeper."""
    end = node.end_lineno or node.lineno
    suite = last_suite(node)
    if not suite or first_line(suite[0]) == node.lineno:
        return end
    column = suite[0].col_offset
    for number in range(end + 1, limit + 1):
        row = rows.row(number)
        bare = row.lstrip()
        if bare and (bare[0] != "#" or len(row) - len(bare) < column):
            break
        if bare:
            end = number
    return end


@dataclass(slots=True)
class Alias:
    """One imported name, as written and as bound."""

    name: str
    bound: str | None  # after `as`

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
    """A top-level definition or assignment: where it stands, and the words of its code."""

    kind: str  # class, function, assignment, exports, getattr, item
    name: str
    lead: int
    start: int
    end: int
    words: frozenset[str]
    exempt: frozenset[str]  # words of absolute imports, which are never renamed
    line: int


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
        self.statements: dict[str, Statement] = {}
        self.items: dict[str, list[str]] = {}  # `NAME[...] = v`: the statements that belong to NAME
        self.imports: list[Import | Guard] = []
        self.dropped: list[Dropped] = []
        self.repeated: list[Statement] = []  # definitions of which a later one of the same name is left
        self.header = text
        self._index()

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
    def rows(self) -> Rows:
        return Rows(self.text)

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

    def _index(self) -> None:
        tree = ast.parse(self.text)
        rows = self.rows
        if tree.body:
            self.header = self.text[: rows.start(first_line(tree.body[0]))]
        first = first_line(tree.body[0]) if tree.body else 1
        for unit in units(rows, tree.body, first, len(rows.starts)):
            self._statement(rows, unit)

    def _statement(self, rows: Rows, unit: Unit) -> None:
        node = unit.node
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.imports.append(read_import(rows, unit))
        elif isinstance(node, ast.If):
            self._guard(rows, unit, node)
        elif isinstance(node, ast.ClassDef):
            self._add("class", node.name, unit)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._add("function", node.name, unit)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and unit.alone:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                kind = {"__all__": "exports", "__getattr__": "getattr"}.get(target.id, "assignment")
                self._add(kind, target.id, unit)
            elif isinstance(target, (ast.Subscript, ast.Attribute)) and isinstance(target.value, ast.Name):
                name = self.text[slice(*rows.span(target))]
                self._add("item", name, unit)
                self.items.setdefault(target.value.id, []).append(name)
            else:
                self._drop(node, "an assignment to several names")
        elif not is_docstring(node):
            self._drop(node, _description(node))

    def _drop(self, node: ast.stmt, what: str) -> None:
        self.dropped.append(Dropped(node.lineno, what, frozenset(bound_names([node]))))

    @property
    def dropped_names(self) -> set[str]:
        """What the statements bind that no output will have."""
        return {name for dropped in self.dropped for name in dropped.names}

    def _add(self, kind: str, name: str, unit: Unit) -> None:
        words, exempt = self.words(unit.start, unit.end)
        if name in self.statements:
            self.repeated.append(self.statements[name])
        self.statements[name] = Statement(kind, name, unit.lead, unit.start, unit.end, words, exempt, unit.node.lineno)

    def _guard(self, rows: Rows, unit: Unit, node: ast.If) -> None:
        inner = units(rows, node.body, node.test.end_lineno or node.lineno, len(rows.starts))
        imports = []
        for piece in inner:
            if isinstance(piece.node, (ast.Import, ast.ImportFrom)):
                piece.lead = max(piece.lead, rows.start((node.test.end_lineno or node.lineno) + 1))
                imports.append(read_import(rows, piece))
            else:
                self._drop(piece.node, "a statement that is not an import, under `if`")
        if not imports:
            return
        rest = ""
        if node.orelse:
            end = node.body[-1].end_lineno or node.lineno
            rest = self.text[rows.start(end + 1) : unit.end]
        test = self.text[slice(*rows.span(node.test))]
        self.imports.append(Guard(self.text[unit.lead : unit.start], test, imports, rest))


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def is_docstring(node: ast.stmt) -> bool:
    """Whether a statement is a string and nothing else."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def read_import(rows: Rows, unit: Unit) -> Import:
    """An import statement with the lines above it and the comment behind it."""
    node = unit.node
    assert isinstance(node, (ast.Import, ast.ImportFrom)) and node.end_lineno and node.end_col_offset is not None
    aliases = [Alias(alias.name, alias.asname) for alias in node.names]
    trail = rows.text[rows.offset(node.end_lineno, node.end_col_offset) : rows.end(node.end_lineno)].rstrip()
    lead = rows.text[unit.lead : unit.start]
    trail = trail if trail.lstrip().startswith("#") else ""
    if isinstance(node, ast.Import):
        return Import(lead, 0, None, aliases, trail)
    return Import(lead, node.level, node.module or "", aliases, trail)


def _description(node: ast.stmt) -> str:
    words = {
        ast.AnnAssign: "an annotated assignment",
        ast.AugAssign: "an augmented assignment",
        ast.Assign: "an assignment to several names",
        ast.Try: "a `try` statement",
        ast.Expr: "an expression",
    }
    return words.get(type(node), f"a `{type(node).__name__.lower()}` statement")
