"""Where the comments, the strings and the text of f-strings stand in a piece of source, without a tokenizer."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

COMMENT, STRING, FORMATTED = (
    "comment",
    "string",
    "formatted",
)  # FORMATTED: the literal text of an f-string, its quotes too

_START = re.compile("[#\"']")
_PREFIX = re.compile(r"(?<!\w)[rRbBuUfFtT]{1,2}\Z")
_REST = {
    '"': re.compile(r'[^"\\\n]*(?:\\(?s:.)[^"\\\n]*)*"'),
    "'": re.compile(r"[^'\\\n]*(?:\\(?s:.)[^'\\\n]*)*'"),
    '"""': re.compile(r'(?s)[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'),
    "'''": re.compile(r"(?s)[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"),
}
_FIELD = re.compile(r"[{}\\\"']")
_INSIDE = re.compile(r"[][(){}:!#\"']")
_IDENTIFIER = re.compile(r"\b[^\W\d]\w*")


class Span(NamedTuple):
    """The characters `start` to `end`, and what they are."""

    start: int
    end: int
    kind: str


def spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The comments, strings and f-string texts of `text`, in order; `start` must not lie inside one."""
    found: list[Span] = []
    stop = len(text) if end is None else end
    position = start
    while match := _START.search(text, position, stop):
        position = read(text, match.start(), found)
    return found


def read(text: str, quote: int, found: list[Span]) -> int:
    """Record what begins with the hash or quote at `quote`; returns where it ends."""
    if text[quote] == "#":
        end = text.find("\n", quote)
        end = len(text) if end < 0 else end
        found.append(Span(quote, end, COMMENT))
        return end
    mark = text[quote : quote + 3] if text[quote : quote + 3] in _REST else text[quote]
    prefix = _PREFIX.search(text, max(0, quote - 3), quote)
    start = prefix.start() if prefix else quote
    if prefix and set("fFtT") & set(prefix[0]):
        return _formatted(text, start, quote + len(mark), mark, "r" in prefix[0].lower(), found)
    rest = _REST[mark].match(text, quote + len(mark))
    end = rest.end() if rest else len(text)
    found.append(Span(start, end, STRING))
    return end


def _formatted(text: str, start: int, position: int, mark: str, raw: bool, found: list[Span]) -> int:
    """Record the literal pieces of an f-string whose text begins at `position`, and the strings in its fields."""
    while match := _FIELD.search(text, position):
        here = match.start()
        if match[0] == "\\":
            position = here + 1 if raw and text[here + 1 : here + 2] not in ("\\", mark[0]) else here + 2
        elif match[0] in "{}" and text[here + 1 : here + 2] == match[0]:
            position = here + 2
        elif match[0] == "{":
            found.append(Span(start, here, FORMATTED))
            start = position = _field(text, here + 1, mark, raw, found)
        elif text.startswith(mark, here):
            found.append(Span(start, here + len(mark), FORMATTED))
            return here + len(mark)
        else:
            position = here + 1
    found.append(Span(start, len(text), FORMATTED))
    return len(text)


def _field(text: str, position: int, mark: str, raw: bool, found: list[Span]) -> int:
    """Record what stands inside a replacement field; returns where its closing brace stands."""
    depth = 0
    while match := _INSIDE.search(text, position):
        here, sign = match.start(), match[0]
        position = here + 1
        if sign in "([{":
            depth += 1
        elif sign == "}" and depth == 0:
            return here
        elif sign in ")]}":
            depth -= 1
        elif sign in "\"'#":
            position = read(text, here, found)
        elif sign == ":" and depth == 0:
            return _format_spec(text, here + 1, mark, raw, found)
    return len(text)


def _format_spec(text: str, start: int, mark: str, raw: bool, found: list[Span]) -> int:
    """Record the literal pieces of a format specification; returns where the field's closing brace stands."""
    position = start
    while match := re.compile("[{}]").search(text, position):
        here = match.start()
        if start < here:
            found.append(Span(start, here, FORMATTED))
        if match[0] == "}":
            return here
        start = position = _field(text, here + 1, mark, raw, found) + 1
    return len(text)


def inside(found: list[Span], offset: int) -> Span | None:
    """The span that holds the character at `offset`."""
    index = bisect_right(found, offset, key=lambda span: span.start) - 1
    return found[index] if index >= 0 and offset < found[index].end else None


def identifiers(text: str, found: list[Span], start: int, end: int) -> set[str]:
    """Every word of the code between two offsets: names, attributes, keywords; not what stands in strings and comments."""
    words: set[str] = set()
    position = start
    first = bisect_right(found, start, key=lambda span: span.end)
    for span in found[first:]:
        if span.start >= end:
            break
        if span.start > position:
            words.update(_IDENTIFIER.findall(text, position, span.start))
        position = max(position, span.end)
    if position < end:
        words.update(_IDENTIFIER.findall(text, position, end))
    return words
