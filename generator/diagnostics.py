"""What a user is told when a definition cannot be compiled."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from .text import Text

CODES = {
    "UB001": "syntax error",
    "UB002": "unreadable source file",
    "UB003": "statement refused at top level",
    "UB004": "unknown module",
    "UB005": "unknown name in a module",
    "UB006": "import cycle",
    "UB007": "import refused",
    "UB008": "two definitions for one output",
    "UB009": "two definitions of one name",
    "UB010": "ambiguous role",
    "UB011": "colliding names",
    "UB012": "undefined name",
    "UB013": "construct refused",
    "UB014": "nothing to remove",
    "UB015": "nothing to extend",
    "UB016": "definition without classes",
    "UB020": "bad project configuration",
    "UB021": "formatter missing or of another version",
    "UB022": "output not writable",
    "UB023": "unknown definition",
    "UB024": "output is not ours",
    "UB025": "unibody of another version",
    "UB026": "no such line in a generated file",
    "UB027": "name refused",
    "UB028": "template error",
    "TD001": "word broken by renaming",
    "TD002": "repeated statement left out",
    "TD003": "assignment leaks into another method",
    "TD004": "call of super() that stays",
    "TD005": "statement in no output",
    "TD006": "method not removed",
    "TD007": "lost comment",
    "TD008": "inferred prefix",
    "TD009": "import of nothing",
    "TD010": "definition written twice",
}
"""What each code means, in a few words: UB of definitions that are refused, TD of what `unibody lint` finds."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what is wrong, where, what was expected and what to do about it."""

    code: str
    message: str
    remedy: str
    path: str
    line: int = 0  # from 1; 0: the whole file
    column: int = 0  # from 1, in characters
    source: str = ""  # the source line, without its newline
    length: int = 1  # of the caret
    notes: tuple[str, ...] = field(default=())
    severity: Severity = "error"

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def __str__(self) -> str:
        """`path:line:column: error[code]: message`, the source line with a caret, the notes and the remedy."""
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        rows = [f"{where}: {self.severity}[{self.code}]: {self.message}"]
        if self.source:
            number = str(self.line)
            pad = " " * len(number)
            tabs = "".join("\t" if c == "\t" else " " for c in self.source[: self.column - 1])
            rows += [f"{pad} |", f"{number} | {self.source}", f"{pad} | {tabs}{'^' * max(1, self.length)}"]
        rows += [f"  = note: {note}" for note in self.notes]
        rows.append(f"  = help: {self.remedy}")
        return "\n".join(rows)


class CompileError(Exception):
    """A definition was refused; `diagnostics` says why."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(str(diagnostic) for diagnostic in diagnostics))
        self.diagnostics = diagnostics


def at(text: Text, node: ast.AST, code: str, message: str, remedy: str, *notes: str) -> Diagnostic:
    """A diagnostic that points at a node of `text`'s own tree, in the file that its line came from."""
    start, end = text.span(node)
    return point(text, start, end - start, code, message, remedy, *notes)


def point(
    text: Text,
    offset: int,
    length: int,
    code: str,
    message: str,
    remedy: str,
    *notes: str,
    severity: Severity = "error",
) -> Diagnostic:
    """A diagnostic that points at some characters of `text`, in the file that their line came from."""
    line = text.line(offset)
    origin, row = text.origins[line - 1], text.row(line)
    column = offset - text.start(line) + 1
    length = max(1, min(length, len(row) - column + 1))
    return Diagnostic(code, message, remedy, origin.path, origin.line, column, row, length, notes, severity)


def nearest(name: str, known: Iterable[str]) -> str:
    """The question for the known name that is spelt most like this one; empty if none is."""
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), 1)
    return f"did you mean `{near[0]}`?" if near else ""


def syntax_error(error: SyntaxError, text: str, path: str) -> Diagnostic:
    """What is said of a file that does not parse."""
    line, column = error.lineno or 1, max(1, error.offset or 1)
    rows = text.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    remedy = "mend the syntax; the file must parse as Python"
    return Diagnostic("UB001", error.msg, remedy, path, line, column, row)
