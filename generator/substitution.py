"""What a definition is called, and what it names, put in other names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import replace

from .diagnostics import CompileError, at
from .parse import Definition, is_string
from .shape import class_name_edit
from .text import Edit, Text


def substitute(definition: Definition, names: Mapping[str, str], types: tuple[str, str] | None) -> Definition:
    """The definition with members' names replaced as `names` says, and model type `types[0]` by `types[1]`.

    Without `types` it is the child's own text, or core's: what that writes in strings and comments is meant as it stands.
    """
    changed = {old: new for old, new in names.items() if old != new}
    text = definition.text
    edits = list(_edits(definition, changed))
    if types is not None:
        whole = _literal_edits(text, changed, types)
        edits += [edit for edit in whole if not any(edit.start < o.start and o.end < edit.end for o in edits)]
        inside = dict.fromkeys(_prose_edits(text, changed))
        edits += [edit for edit in inside if not any(o.start <= edit.start and edit.end <= o.end for o in edits)]
    if not edits:
        return definition
    new_names = tuple(changed.get(name, name) for name in definition.names)
    return replace(definition, names=new_names, text=text.edit(edits))


def _edits(definition: Definition, names: dict[str, str]) -> Iterator[Edit]:
    text = definition.text
    for name, local in definition.scoped:
        if name.id in names:
            start, end = text.span(name)
            if names[name.id] in local:
                message = f"`{name.id}` becomes `{names[name.id]}` here, which is a local name"
                remedy = "give the local variable or parameter another name"
                raise CompileError(at(text, name, "UB011", message, remedy))
            yield Edit(start, end, names[name.id])
    for statement in ast.walk(text.tree) if "global " in text.text else ():
        if isinstance(statement, ast.Global):
            start, end = text.span(statement)
            for word in re.compile(r"\w+").finditer(text.text, start + len("global"), end):
                if word[0] in names:
                    yield Edit(*word.span(), names[word[0]])
    node = definition.node
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in names:
        yield class_name_edit(text, node, names[node.name])


def _literal_edits(text: Text, names: dict[str, str], types: tuple[str, str]) -> Iterator[Edit]:
    """Attributes equal to the model type, and whole strings equal to it or to a member's name."""
    old, new = types
    literals = names | ({old: new} if old != new else {})
    parts = {id(part) for node in ast.walk(text.tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for child in ast.walk(text.tree) if literals else ():
        if isinstance(child, ast.Attribute) and child.attr == old:
            end = text.span(child)[1]
            yield Edit(end - len(child.attr), end, new)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str) and id(child) not in parts:
            if child.value in literals:
                start, end = text.span(child)
                literal, meant = text.text[start:end], literals[child.value]
                whole = literal.count(child.value) == 1  # otherwise pieces, or escapes
                yield Edit(start, end, literal.replace(child.value, meant) if whole else f'"{meant}"')


def _prose_edits(text: Text, names: dict[str, str]) -> Iterator[Edit]:
    """Members' names in comments, docstrings and the messages of errors, as whole words, never inside a URL or a repository id."""
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
    """The spans of all comments and docstrings of a text, and of the messages of the errors that it raises."""
    for token in tokenize.generate_tokens(io.StringIO(text.text).readline):
        if token.type == tokenize.COMMENT:
            start = text.starts[token.start[0] - 1] + token.start[1]
            yield start, start + len(token.string)
    for node in ast.walk(text.tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body and is_string(body[0]):
            yield text.span(body[0])
        if isinstance(node, ast.Raise):
            parts = (part for part in ast.walk(node) if isinstance(part, (ast.Constant, ast.JoinedStr)))
            yield from (text.span(part) for part in parts if isinstance(getattr(part, "value", ""), str))
