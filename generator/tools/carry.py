"""Origins of lines, carried through a formatter.

What makes an output changes layout last: the formatter moves line ends, quotes, parentheses and commas. So the text before and the
text after it are laid side by side without these characters, and each line gets the origins of the characters that it is made of.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..text import Origin

Kind = Literal["definition", "parent", "core", "import", "template", "banner"]
LAYOUT = re.compile(r"[\s(),;\"'\\]+")  # what a formatter moves, adds and removes
WINDOW, REACH = 12, 400  # characters that must agree to take up a lost thread, and how far to look for them


@dataclass(frozen=True)
class Line:
    """What a line of an output is made from; the first origin is that of its first word."""

    kind: Kind
    origins: tuple[Origin, ...]
    space: str = ""  # the definition or core file whose member it belongs to
    name: str = ""  # that member, as the output calls it


def carry(text: str, before: str, made: list[Line]) -> list[Line]:
    """The entries of the text before formatting carried over to the lines of the text after it."""
    rows, old_rows = text.split("\n"), before.split("\n")
    characters, places = _strip(rows)
    old_characters, old_places = _strip(old_rows)
    sources: list[dict[int, None]] = [{} for _ in rows]
    for place, index in zip(places, _pair(characters, old_characters), strict=True):
        sources[place].setdefault(old_places[index])
    lines: list[Line] = []
    last = 0
    for row, found in zip(rows, sources, strict=True):
        if found:
            entries = [made[index] for index in found]
            origins = dict.fromkeys(origin for entry in entries for origin in entry.origins)
            lines.append(replace(entries[0], origins=tuple(origins)))
            last = max(found)
        else:  # a blank line, or one of brackets and quotes
            if last + 1 < len(old_rows) and old_rows[last + 1].strip() == row.strip():
                last += 1
            lines.append(made[last])
    return lines


def _strip(rows: Sequence[str]) -> tuple[str, list[int]]:
    """The characters that a formatter leaves alone, in lower case, and the index of each one's row."""
    kept = [LAYOUT.sub("", row).lower() for row in rows]
    return "".join(kept), [index for index, row in enumerate(kept) for _ in row]


def _pair(new: str, old: str) -> list[int]:
    """For each character of `new` the index of the one in `old` that it was; both are alike but for rare, short pieces."""
    if new == old:
        return list(range(len(old)))
    found: list[int] = []
    at = 0
    while len(found) < len(new):
        here = len(found)
        if at < len(old) and new[here] == old[at]:
            found.append(at)
            at += 1
            continue
        skip, jump = next(
            (
                (skip, reach - skip)
                for reach in range(1, REACH)
                for skip in range(reach + 1)
                if new[here + skip : here + skip + WINDOW] == old[at + reach - skip : at + reach - skip + WINDOW] != ""
            ),
            (len(new) - here, 0),
        )
        found += [min(at, len(old) - 1)] * skip
        at += jump
    return found


def import_lines(rows: Sequence[str], places: Mapping[str, Sequence[Origin]]) -> list[Line]:
    """An import comes from the statements that asked for its names; a line without a name (`try:`) goes with its neighbour."""
    found = [[o for name in _bound(row) for o in places.get(name, ())] for row in rows]
    for index in reversed(range(len(rows))):
        found[index] = found[index] or (found[index + 1] if index + 1 < len(rows) else found[index])
    for index in range(1, len(rows)):
        found[index] = found[index] or found[index - 1]
    return [Line("import", tuple(dict.fromkeys(origins))) for origins in found]


def _bound(row: str) -> list[str]:
    """The names that a line of an import block binds."""
    before, found, after = row.partition("import ")
    if not found:
        return re.findall(r"\w+", before)
    return [entry.split(" as ")[-1].partition(".")[0].strip() for entry in after.split(",")]


def label(text: str, number: int) -> str:
    """The class and function around a line: `LlamaAttention.forward`."""
    names = []
    scope: list[ast.stmt] = ast.parse(text).body
    while scope:
        inner = [n for n in scope if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        around = next((n for n in inner if _first(n) <= number <= (n.end_lineno or 0)), None)
        if around is None:
            break
        names.append(around.name)
        scope = around.body
    return ".".join(names)


def _first(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])
