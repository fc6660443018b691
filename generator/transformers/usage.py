"""Which of some names a text reads as names of its module: by its words where they leave no doubt, by its scopes elsewhere."""

from __future__ import annotations

import ast
import re

from ..scopes import global_names
from . import lexical

_WORD = re.compile(r"(?<![\w.])(@?)([^\W\d]\w*)(?=(\s*[.(\[])?)")
_BINDS = re.compile(r"\b(?:def|class|for)\s+([^\W\d]\w*)")
_LOCAL_IMPORT = re.compile(r"^([ \t]+)(?:from[ \t]+[.\w]+[ \t]+)?import[ \t]+(?:\([^)]*\)|[^\n(]*$)", re.MULTILINE)
_ANNOTATION = re.compile(r"[^\W\d][\w.\[\], |]*")


def used(names: set[str], pieces: list[str]) -> set[str]:
    """The names among those given that some definitions read as names of the module."""
    found: set[str] = set()
    doubts: list[tuple[str, set[str]]] = []
    quoted: list[tuple[str, set[str]]] = []
    for piece in pieces:
        # An import inside a function does not hide the module's: the corpus keeps both.
        text = _LOCAL_IMPORT.sub(r"\1pass", piece) if "import " in piece else piece
        spans = lexical.spans(text)
        certain, doubtful = _words(names, text, spans)
        found |= certain - doubtful
        if doubtful:
            doubts.append((text, doubtful))
        strings = _quoted(text, spans, names)
        if strings:
            quoted.append((text, strings))
    for text, doubtful in doubts:
        if doubtful - found:
            found |= {name.id for name in global_names(ast.parse(text)) if isinstance(name.ctx, ast.Load)} & doubtful
    for text, strings in quoted:
        if strings - found:
            found |= _annotation_words(ast.parse(text)) & strings
    return found


def _words(names: set[str], text: str, spans: list[lexical.Span]) -> tuple[set[str], set[str]]:
    """The names that a text reads without doubt, and those that it may bind itself."""
    certain = {name for name in names if "." in name and re.search(rf"(?<![\w.]){re.escape(name)}\b", text)}
    doubtful: set[str] = set()
    for start, end in _code(spans, len(text)):
        for at, word, follows in _WORD.findall(text, start, end):
            if word in names:
                (certain if at or follows or word[0].isupper() else doubtful).add(word)
        doubtful |= names & set(_BINDS.findall(text, start, end))
    return certain, doubtful


def _code(spans: list[lexical.Span], size: int) -> list[tuple[int, int]]:
    """The stretches between comments and strings."""
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), size]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _quoted(text: str, spans: list[lexical.Span], names: set[str]) -> set[str]:
    """The names that stand in strings that could be annotations."""
    found: set[str] = set()
    for start, end, kind in spans:
        if kind == lexical.STRING and end - start < 100:
            content = text[start:end].strip("\"'")
            if _ANNOTATION.fullmatch(content):
                found.update(re.findall(r"[^\W\d]\w*", content))
    return found & names


def _annotation_words(tree: ast.AST) -> set[str]:
    """The words of annotations that are written as strings."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if annotation is not None:
                for inner in ast.walk(annotation):
                    if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                        found.update(re.findall(r"[^\W\d]\w*", inner.value))
    return found
