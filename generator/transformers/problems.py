"""Refusals of this dialect: where in the definition, what is wrong, what to do."""

from __future__ import annotations

from ..diagnostics import CompileError, Diagnostic
from .source import Source


def point(source: Source, offset: int, length: int, code: str, message: str, remedy: str, *notes: str) -> Diagnostic:
    """A diagnostic that points at some characters of a file."""
    line = source.text.count("\n", 0, offset) + 1
    row = source.rows.row(line)
    column = offset - source.rows.starts[line - 1] + 1
    return Diagnostic(code, message, remedy, source.path, line, column, row, max(1, length), notes)


def refuse(
    source: Source, offset: int, length: int, code: str, message: str, remedy: str, *notes: str
) -> CompileError:
    """The same as an error."""
    return CompileError(point(source, offset, length, code, message, remedy, *notes))
