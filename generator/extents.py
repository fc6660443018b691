"""Which lines of a block belong to which of its statements: the comments above it, and those that end its own block."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .text import Rows


@dataclass(slots=True)
class Extent:
    """A statement with the lines that it owns: `lead` (blank and comment lines above), `start`, and `end` (its last newline)."""

    node: ast.stmt
    lead: int
    start: int
    end: int
    others: list[ast.stmt]  # more statements on its lines


def extents(rows: Rows, body: list[ast.stmt], first: int, last: int) -> list[Extent]:
    """The statements of a block; `first` is the line where the lead of the first begins, `last` the block's last line."""
    found: list[Extent] = []
    line = first
    for node in body:
        start = first_line(node)
        end = _last_line(rows, node, last)
        if found and start < line:
            found[-1].others.append(node)
            found[-1].end = max(found[-1].end, rows.end(end))
            line = max(line, end + 1)
            continue
        found.append(Extent(node, rows.start(line), rows.start(start), rows.end(end), []))
        line = end + 1
    return found


def first_line(node: ast.stmt) -> int:
    """The line that a statement starts on, its decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(decorators[0].lineno, node.lineno) if decorators else node.lineno


def _last_line(rows: Rows, node: ast.stmt, limit: int) -> int:
    """The last line of a statement, with the comments that end its block at the block's indentation or deeper."""
    end = node.end_lineno or node.lineno
    suite = _last_suite(node)
    if not suite or first_line(suite[0]) == node.lineno:
        return end
    return comments_below(rows, end, limit, suite[0].col_offset)


def comments_below(rows: Rows, end: int, limit: int, column: int) -> int:
    """The last of the comment lines that follow the line `end`, indented by `column` or more; `end` if there are none."""
    for number in range(end + 1, limit + 1):
        row = rows.row(number)
        bare = row.lstrip()
        if bare and (bare[0] != "#" or len(row) - len(bare) < column):
            break
        if bare:
            end = number
    return end


def _last_suite(node: ast.AST) -> list[ast.stmt]:
    """The block that ends a compound statement; empty for a simple one."""
    for field in ("finalbody", "orelse", "handlers", "cases", "body"):
        value = getattr(node, field, None)
        if isinstance(value, list) and value:
            return value if isinstance(value[-1], ast.stmt) else _last_suite(value[-1])
    return []
