"""Tables that extend a parent's, folded when compiling: `kernels = (*Parent.kernels, mine)`, `plan = {**Parent.plan, "k": v}`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from .diagnostics import CompileError, at
from .shape import Member, Shape
from .text import Edit, Text

DISPLAYS = (ast.Tuple, ast.List, ast.Set)


def fold(member: Member, base: str, name: str, parent: Shape) -> Member:
    """The field with `*Parent.x` and `**Parent.x` replaced by what the parent's `x` lists; `base` is what stands for Parent."""
    edits = list(_edits(member, base, name, parent))
    return Member(member.kind, member.names, member.text.edit(edits)) if edits else member


def parent_references(text: Text, node: ast.AST, base: str) -> Iterator[ast.Attribute]:
    """Every `Base.x` below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == base:
            yield child


def is_foldable(field: ast.stmt, reference: ast.Attribute) -> bool:
    """Whether a reference stands where folding puts the parent's entries."""
    value = getattr(field, "value", None)
    if isinstance(value, DISPLAYS):
        return any(isinstance(e, ast.Starred) and e.value is reference for e in value.elts)
    if isinstance(value, ast.Dict):
        return any(k is None and v is reference for k, v in zip(value.keys, value.values, strict=True))
    return False


def _edits(member: Member, base: str, name: str, parent: Shape) -> Iterator[Edit]:
    text, node = member.text, member.node
    for reference in parent_references(text, node, base):
        if not is_foldable(node, reference):
            continue
        theirs = parent.find(reference.attr)
        value = getattr(theirs.node, "value", None) if theirs else None
        mine = getattr(node, "value", None)
        fits = isinstance(value, ast.Dict) if isinstance(mine, ast.Dict) else isinstance(value, DISPLAYS)
        if theirs is None or not fits:
            message = f"`{reference.attr}` of `{name}` is no literal table that could be folded in"
            raise CompileError(at(text, reference, "UB015", message, "write the entries out"))
        start = text.text.rindex("*", 0, text.span(reference)[0])
        start -= 1 if isinstance(value, ast.Dict) else 0
        end = text.span(reference)[1]
        entries = _entries(theirs.text.of(value)) if value else None
        if entries is None:
            end += len(re.match(r"\s*,?\s*", text.text[end:])[0])  # type: ignore[index]
            if isinstance(mine, ast.Tuple) and len(mine.elts) == 2:
                last = text.span(mine.elts[-1])[1]
                yield Edit(last, last, ",") if not text.text[last:].lstrip().startswith(",") else Edit(last, last, "")
        yield Edit(start, end, entries or "")


def _entries(display: Text) -> Text | None:
    """What stands between the brackets of a display, without a comma or comment at the end; None, if nothing does."""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(display.text).readline) if t.type not in ignored]
    if _bracketed(tokens):
        tokens = tokens[1:-1]
    while tokens and tokens[-1].string == ",":
        tokens.pop()
    if not tokens:
        return None
    (first, start), (last, end) = tokens[0].start, tokens[-1].end
    return display.slice(display.starts[first - 1] + start, display.starts[last - 1] + end)


def _bracketed(tokens: list[tokenize.TokenInfo]) -> bool:
    """Whether the first token opens a bracket that the last one closes."""
    depth = 0
    for number, token in enumerate(tokens):
        depth += (token.string in tuple("([{")) - (token.string in tuple(")]}"))
        if depth == 0:
            return number == len(tokens) - 1 and number > 0
    return False
