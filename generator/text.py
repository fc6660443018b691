"""Source text that remembers where each of its lines came from."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

GRAMMAR = (3, 11)  # of definitions on any Python: the oldest that generated files run on


class Origin(NamedTuple):
    """The file (relative, with forward slashes) and line (from 1) that a line of text was written on."""

    path: str
    line: int


class Mixed(Origin):
    """The origin of a line that is made of several: that of its first word, and the others."""

    others: tuple[Origin, ...] = ()

    @classmethod
    def of(cls, first: Origin, second: Origin) -> Origin:
        """What a line that begins with a piece of `first` comes from when a piece of `second` is added."""
        every = dict.fromkeys((*origins_of(first), *origins_of(second)))
        if len(every) == 1:
            return first
        mixed = cls(*first)
        mixed.others = tuple(every)[1:]
        return mixed


def origins_of(line: Origin) -> tuple[Origin, ...]:
    """All that a line was made of, its first word's origin first."""
    return (Origin(*line), *line.others) if isinstance(line, Mixed) else (line,)


class Edit(NamedTuple):
    """Replace the characters `start` to `end` (offsets into `Text.text`) by `new`."""

    start: int
    end: int
    new: Text | str


class Rows:
    """Some lines of source, and the offsets of what `ast` finds in them."""

    text: str

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def starts(self) -> list[int]:
        """Offset of the first character of each line."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    @cached_property
    def _ascii(self) -> bool:
        return self.text.isascii()

    def line(self, offset: int) -> int:
        """The line, from 1, that the character at an offset stands on."""
        return bisect_right(self.starts, offset)

    def start(self, line: int) -> int:
        """Offset of the first character of a line; the end of the text for the line after the last."""
        return self.starts[line - 1] if line <= len(self.starts) else len(self.text)

    def end(self, line: int) -> int:
        """Offset of the line's newline, or of the end of the text."""
        return self.starts[line] - 1 if line < len(self.starts) else len(self.text)

    def row(self, line: int) -> str:
        """A line without its newline."""
        return self.text[self.starts[line - 1] : self.end(line)]

    def offset(self, line: int, column: int) -> int:
        """Offset of a position as `ast` gives it: line from 1, column in UTF-8 bytes."""
        start = self.starts[line - 1]
        if self._ascii:
            return start + column
        row = self.text[start : self.end(line)]
        return start + (column if row.isascii() else len(row.encode()[:column].decode()))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Offsets of a node's first character and of the one after its last; a decorated definition starts at its decorators."""
        first = min([node, *getattr(node, "decorator_list", [])], key=lambda n: n.lineno)
        start = self.offset(first.lineno, first.col_offset)
        if first is not node:
            start = self.text.rindex("@", 0, start)
        return start, self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Text(Rows):
    """Some lines of source, without a final newline; `origins` holds one entry a line."""

    text: str
    origins: tuple[Origin, ...]

    def __post_init__(self) -> None:
        assert len(self.origins) == self.text.count("\n") + 1, "one origin a line"

    @classmethod
    def from_file(cls, text: str, path: str) -> Text:
        return cls(text, tuple(Origin(path, line) for line in range(1, text.count("\n") + 2)))

    def slice(self, start: int, end: int) -> Text:
        """The characters `start` to `end`."""
        first = self.line(start)
        piece = self.text[start:end]
        return Text(piece, self.origins[first - 1 : first + piece.count("\n")])

    def of(self, node: ast.AST) -> Text:
        """The text of a node of this text's own tree."""
        return self.slice(*self.span(node))

    def lines(self, first: int, last: int) -> Text:
        """The lines `first` to `last`, both included, counted from 1."""
        return Text(self.text[self.start(first) : self.end(last)], self.origins[first - 1 : last])

    def edit(self, edits: Iterable[Edit]) -> Text:
        """This text with the edits made; they must not overlap."""
        pieces: list[Text] = []
        position = 0
        for start, end, new in sorted(edits, key=lambda e: (e.start, e.end)):
            assert start >= position, "edits overlap"
            pieces.append(self.slice(position, start))
            pieces.append(
                Text(new, (self._origin_at(start),) * (new.count("\n") + 1)) if isinstance(new, str) else new
            )
            position = end
        pieces.append(self.slice(position, len(self.text)))
        return concatenate(pieces)

    def _origin_at(self, offset: int) -> Origin:
        return self.origins[self.line(offset) - 1]

    def shift(self, columns: int) -> Text:
        """This text indented by `columns` (dedented when negative); the insides of multi-line strings stay as they are."""
        protected = string_lines(self)
        rows = []
        for number, row in enumerate(self.text.split("\n"), start=1):
            if number in protected or not row.strip():
                rows.append(row if number in protected else "")
            elif columns >= 0:
                rows.append(" " * columns + row)
            else:
                blank = len(row) - len(row.lstrip(" "))
                rows.append(row[min(blank, -columns) :])
        return Text("\n".join(rows), self.origins)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, feature_version=GRAMMAR)


def string_lines(text: Text) -> set[int]:
    """The lines that begin inside a string literal, counted from 1."""
    source = text.text
    if '"""' not in source and "'''" not in source:
        return set()
    margin = re.match(r"(?:[ \t]*(?:#.*)?\n)*([ \t]*)", source)
    wrapped = source if not margin or not margin[1] else "if 1:\n" + source
    shifted = 0 if wrapped is source else 1
    return {
        line - shifted
        for node in ast.walk(ast.parse(wrapped))
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and (node.end_lineno or 0) > node.lineno
        if isinstance(node, ast.JoinedStr) or isinstance(node.value, (str, bytes))
        for line in range(node.lineno + 1, (node.end_lineno or 0) + 1)
    }


def concatenate(pieces: Sequence[Text | str]) -> Text:
    """The pieces end to end; a line made of several pieces has the origin of the first that is not empty, then the others'.

    A plain string belongs to the line that it stands on.
    """
    origins: list[Origin] = []
    texts: list[str] = []
    is_open = False
    blank = True
    for piece in pieces:
        text = piece if isinstance(piece, str) else piece.text
        if not text:
            continue
        texts.append(text)
        first, _, rest = text.partition("\n")
        if isinstance(piece, str):
            assert not rest, "a plain string is a part of a line"
            if not is_open:
                origins.append(Origin("", 0))  # what follows says where it comes from
                is_open = True
            else:
                blank = blank and not first.strip()
            continue
        if not is_open:
            origins.extend(piece.origins)
        else:
            if blank and first:
                origins[-1] = piece.origins[0]
            elif first.strip():
                origins[-1] = Mixed.of(origins[-1], piece.origins[0])
            origins.extend(piece.origins[1:])
        blank = (
            (blank or not is_open) and not first.strip()
            if len(piece.origins) == 1
            else not text.rpartition("\n")[2].strip()
        )
        is_open = True
    empty = next((piece.origins[:1] for piece in pieces if isinstance(piece, Text)), ())
    return Text("".join(texts), tuple(origins) if origins else empty)


def join(pieces: Sequence[Text], separator: str = "\n") -> Text:
    """The pieces with `separator` (only newlines) between them; the lines it makes belong to the piece before."""
    assert separator, "pieces need a separator"
    origins: list[Origin] = []
    for number, piece in enumerate(pieces):
        if number and len(separator) > 1:
            origins.extend([origins[-1]] * (len(separator) - 1))
        origins.extend(piece.origins)
    return Text(separator.join(piece.text for piece in pieces), tuple(origins))
