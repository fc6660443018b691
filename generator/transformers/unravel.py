"""`super().method(…)` replaced by the parent's body: statements of the two are laid together by what they assign."""

from __future__ import annotations

import ast
import re

from ..diagnostics import CompileError, point
from ..text import Edit, Rows, concatenate, join
from . import lexical
from .quirks import Quirks
from .shape import Method, Note, Piece, Shape

_WRAP = "if 1:\n"


class Records:
    """What the statements after a call of `super()` assign and delete. One for all methods of a class."""

    def __init__(self) -> None:
        self.assigned: dict[str, Piece] = {}
        self.deleted: set[str] = set()


def unravel(shape: Shape, originals: dict[str, Method], own: Shape, quirks: Quirks) -> None:
    """Replace the calls of `super()` in the methods that the child wrote, in the order in which they stand."""
    records = Records()
    written = {method.node.name for method in own.methods.values()}
    for key, method in shape.methods.items():
        if method.node.name in written or method.name in written:
            _method(shape, key, method, originals, records if quirks.shares_records else Records(), quirks)


def _method(
    shape: Shape,
    key: str,
    method: Method,
    originals: dict[str, Method],
    records: Records,
    quirks: Quirks,
) -> None:
    name = method.name
    header, pieces, footer = method.pieces()
    strings = _leading_strings(method, pieces, originals.get(key))
    body = [*strings, *pieces]
    at = next((i for i, piece in enumerate(body) if _is_super(piece.node, name)), None)
    stop = len(body) if at is None else at
    changed = at is not None
    for piece in body[:stop]:
        changed |= _rewrite(piece, shape.bases)
    if at is None and name in originals and originals[name] is not method:
        shape.notes += [
            Note("TD004", piece.offset, f"`super().{name}(…)` stays, and now means the bases of the new class")
            for piece in body
            if piece.node is not None and any(_calls_super(node, name) for node in ast.walk(piece.node))
        ]
    if at is not None:
        if name not in originals:
            source = method.home.view.source
            message = f"the parent has no method `{name}` that `super()` could call"
            remedy = "write the body out, or inherit from a class that has the method"
            offset = source.text.index("super", body[at].offset)
            raise CompileError(point(source.rows, offset, 5, "UB015", message, remedy))
        inherited = originals[name].pieces()[1]
        spliced = _splice(inherited, body[at + 1 :], records, quirks, shape.notes)
        body = _ordered([*body[:at], *spliced], inherited)
    if changed:
        method.block = concatenate([join([header, *(piece.text for piece in body)]), footer])


def _leading_strings(method: Method, pieces: list[Piece], inherited: Method | None) -> list[Piece]:
    """The parent's docstrings that were put before the child's body."""
    if inherited is None or inherited is method or any(piece.is_string for piece in pieces):
        return []
    return [piece for piece in inherited.pieces()[1] if piece.is_string]


def _is_super(node: ast.stmt | None, name: str) -> bool:
    """Whether a statement is `super().name(…)` alone, or returns it."""
    return isinstance(node, (ast.Expr, ast.Return)) and node.value is not None and _calls_super(node.value, name)


def _calls_super(node: ast.AST, name: str) -> bool:
    """Whether an expression is `super().name(…)`."""
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == name
        and isinstance(function.value, ast.Call)
        and isinstance(function.value.func, ast.Name)
        and function.value.func.id == "super"
    )


def _splice(
    inherited: list[Piece], rest: list[Piece], records: Records, quirks: Quirks, notes: list[Note]
) -> list[Piece]:
    for piece in rest:
        if piece.target is not None:
            records.assigned[piece.target] = piece
        if piece.deleted is not None:
            records.deleted.add(piece.deleted)
    body: list[Piece] = []
    used: set[int] = set()
    for piece in inherited:
        if (piece.target or piece.annotated) in records.deleted:
            continue
        if piece.target is not None and piece.target in records.assigned:
            replacement = records.assigned[piece.target]
            if replacement not in rest:
                message = f"this assignment of `{piece.target}` also replaces the one in another inherited method"
                notes.append(Note("TD003", replacement.offset, message))
            used.add(id(replacement))
            body.append(replacement)
        elif not piece.is_string:
            body.append(piece)
    present = {_bare(piece) for piece in body}
    for piece in rest:
        if piece.deleted is not None or id(piece) in used:
            continue
        bare = _bare(piece)
        if quirks.swallows_repetitions and bare in present:
            message = f"`{bare.strip().partition(chr(10))[0]}` is left out: the body already has that statement"
            notes.append(Note("TD002", piece.offset, message))
            continue
        body.append(piece)
        present.add(bare)
    return body


def _bare(piece: Piece) -> str:
    """The code of a statement without its comments."""
    code = piece.code
    if "#" in code:
        for span in reversed(lexical.spans(code)):
            if span.kind == lexical.COMMENT:
                code = code[: span.start] + code[span.end :]
    return "\n".join(row.rstrip() for row in code.split("\n") if row.strip())


def _ordered(body: list[Piece], inherited: list[Piece]) -> list[Piece]:
    """The statements with `self.post_init()` last and `super().__init__()` first, where they are written."""
    post = next((i for i, piece in enumerate(body) if "self.post_init(" in piece.code), None)
    if post is not None and post != len(body) - 1:
        body.append(body.pop(post))
    plain = [piece for piece in inherited if not piece.is_string]
    if any("super().__init__" in piece.code for piece in plain[1:]):
        return body
    strings = next((i for i, piece in enumerate(body) if not piece.is_string), len(body))
    start = next((i for i, piece in enumerate(body) if i > strings and "super().__init__" in piece.code), None)
    if start is not None:
        body.insert(strings, body.pop(start))
    return body


def _rewrite(piece: Piece, bases: list[str]) -> bool:
    """Turn calls of a base's method by its name into calls of `super()`; returns whether there were any."""
    if piece.node is None or not any(base in piece.code for base in [*bases, "nn.Module", "PreTrainedModel"]):
        return False
    source = f"{_WRAP}{piece.code}"
    rows = Rows(source)
    shift = len(piece.text.text) - len(source)
    edits: list[Edit] = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        if not isinstance(owner, (ast.Name, ast.Attribute)) or not _stands_for_super(ast.unparse(owner), bases):
            continue
        start, end = rows.span(owner)
        edits.append(Edit(start + shift, end + shift, "super()"))
        if node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == "self":
            start, end = rows.span(node.args[0])
            following = re.match(r"\s*,\s*", source[end:])
            edits.append(Edit(start + shift, end + shift + (following.end() if following else 0), ""))
    if not edits:
        return False
    above = len(piece.text.text) - len(piece.code)
    piece.text = piece.text.edit(edits)
    piece.code = piece.text.text[above:]
    return True


def _stands_for_super(owner: str, bases: list[str]) -> bool:
    if owner in bases:
        return True
    if owner == "nn.Module":
        return "GradientCheckpointingLayer" in bases
    return owner == "PreTrainedModel" and any("PreTrainedModel" in base for base in bases)
