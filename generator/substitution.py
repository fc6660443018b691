"""What a definition is called, and what it names, put in other names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping

from .parse import Definition, is_string
from .shape import class_name_edit
from .text import Edit, Text


def substitute(definition: Definition, names: Mapping[str, str], types: tuple[str, str] | None) -> Definition:
    """The definition with members' names replaced as `names` says, and model type `types[0]` by `types[1]`."""
    changed = {old: new for old, new in names.items() if old != new}
    text = definition.text
    edits = list(_edits(definition, changed, types if types and types[0] != types[1] else None))
    edits += [e for e in _prose_edits(text, changed) if not any(o.start <= e.start and e.end <= o.end for o in edits)]
    if not edits:
        return definition
    new_names = tuple(changed.get(name, name) for name in definition.names)
    return Definition(definition.kind, new_names, text.edit(edits))


def _edits(definition: Definition, names: dict[str, str], types: tuple[str, str] | None) -> Iterator[Edit]:
    text, tree = definition.text, definition.text.tree
    for name in definition.globals:
        if name.id in names:
            start, end = text.span(name)
            yield Edit(start, end, names[name.id])
    node = definition.node
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in names:
        yield class_name_edit(text, node, names[node.name])
    literals = names | ({types[0]: types[1]} if types else {})
    for child in ast.walk(tree):
        if types and isinstance(child, ast.Attribute) and child.attr == types[0]:
            end = text.span(child)[1]
            yield Edit(end - len(child.attr), end, types[1])
        elif isinstance(child, ast.Constant) and isinstance(child.value, str) and child.value in literals:
            start, end = text.span(child)
            literal = text.text[start:end]
            if literal.count(child.value) == 1:
                yield Edit(start, end, literal.replace(child.value, literals[child.value]))


def _prose_edits(text: Text, names: dict[str, str]) -> Iterator[Edit]:
    """Members' names in comments and docstrings, as whole words, never inside a URL or a repository id."""
    if not names:
        return
    pattern = re.compile(r"(?<![\w/-])(?:" + "|".join(sorted(map(re.escape, names), reverse=True)) + r")(?![\w/-])")
    if not pattern.search(text.text):
        return
    for start, end in prose(text):
        for match in pattern.finditer(text.text, start, end):
            word = re.search(r"\S*$", text.text[start : match.start()])
            if word is None or "://" not in word[0]:
                yield Edit(match.start(), match.end(), names[match[0]])


def prose(text: Text) -> Iterator[tuple[int, int]]:
    """The spans of all comments and docstrings of a text."""
    for token in tokenize.generate_tokens(io.StringIO(text.text).readline):
        if token.type == tokenize.COMMENT:
            start = text.starts[token.start[0] - 1] + token.start[1]
            yield start, start + len(token.string)
    for node in ast.walk(text.tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body and is_string(body[0]):
            yield text.span(body[0])
