"""The import statements of an output: who may provide a name, and which providers are kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import lexical
from .parents import Parent, is_model_import
from .renaming import View
from .source import Alias, Guard, Import, Source


@dataclass(slots=True)
class Candidate:
    """An import statement, or a guarded group of them, that an output may use."""

    lead: str
    imports: list[Import]
    test: str | None = None  # of the `if` around them
    rest: str = ""


def candidates(source: Source, created: Mapping[str, str], parents: list[tuple[View, Parent]]) -> list[Candidate]:
    """All import statements of the child, those of siblings, and those of the parents, in the order in which they count."""
    found = [c for entry in source.imports for c in _candidate(entry, None, own=True)]
    for name in sorted(created):
        found.append(Candidate("", [Import("", 1, created[name], [Alias(name, None)], "")]))
    for view, _ in parents:
        found += [c for entry in view.source.imports for c in _candidate(entry, view, own=False)]
    return found


def _candidate(entry: Import | Guard, view: View | None, own: bool) -> list[Candidate]:
    if isinstance(entry, Guard):
        change = view.renamer.plain if view and view.renamer else (lambda text: text)
        imports = [renamed for inner in entry.imports if (renamed := _renamed(inner, view, own))]
        return [Candidate(change(entry.lead), imports, change(entry.test), change(entry.rest))] if imports else []
    renamed = _renamed(entry, view, own)
    return [Candidate(renamed.lead, [renamed])] if renamed else []


def _renamed(entry: Import, view: View | None, own: bool) -> Import | None:
    if own and entry.module is not None and is_model_import(entry.level, entry.module):
        return None
    if view is None or view.renamer is None:
        return entry
    change = view.renamer.plain
    lead = "\n".join("" if "# Copied from" in row else change(row) for row in entry.lead.split("\n"))
    if entry.level == 0 and entry.module is not None:
        return Import(lead, 0, entry.module, entry.aliases, change(entry.trail))
    aliases = [Alias(change(a.name), change(a.bound) if a.bound else None) for a in entry.aliases]
    module = view.repair_module(change(entry.module)) if entry.module is not None else None
    return Import(lead, entry.level, module, aliases, change(entry.trail))


def select(found: list[Candidate], body: str, defined: set[str]) -> str:
    """The text of the imports that the body and each other need: the first provider of a name wins."""
    provided = {alias.local for c in found for entry in c.imports for alias in entry.aliases}
    wanted = used(provided, body) - defined
    tests: set[str] = set()
    while True:
        plain, guarded, names = _walk(found, wanted | tests)
        more = _test_names(guarded, provided)
        if more <= tests:
            break
        tests |= more
    del names
    return "".join(f"{row}\n" for row in [*plain, *(text for text, _ in guarded)])


def _walk(found: list[Candidate], wanted: set[str]) -> tuple[list[str], list[tuple[str, str]], set[str]]:
    kept: set[str] = set()
    plain: list[str] = []
    guarded: list[tuple[str, str]] = []
    for candidate in found:
        if candidate.test is None:
            text = _filtered(candidate.imports[0], wanted, kept)
            if text:
                plain.append(candidate.lead + text)
            continue
        rows = [inner.lead + f"    {text}" for inner in candidate.imports if (text := _filtered(inner, wanted, kept))]
        if rows:
            body = "\n".join(rows)
            rest = f"\n{candidate.rest}" if candidate.rest else ""
            guarded.append((f"{candidate.lead}if {candidate.test}:\n{body}{rest}", candidate.test))
    return plain, guarded, kept


def _filtered(entry: Import, wanted: set[str], kept: set[str]) -> str:
    names = [alias for alias in entry.aliases if alias.local in wanted and alias.local not in kept]
    kept.update(alias.local for alias in names)
    return entry.render(names) if names else ""


def _test_names(guarded: list[tuple[str, str]], provided: set[str]) -> set[str]:
    return {word for _, test in guarded for word in re.findall(r"\w+", test)} & provided


_BEFORE = re.compile(r"(?:\.|\bdef\s+|\bclass\s+)\s*\Z")


def used(names: set[str], body: str) -> set[str]:
    """The names among those given that the body reads as names of the module."""
    tree = ast.parse(body)
    found: set[str] = set()
    bound: set[str] = set()
    strings: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id in names:
                if isinstance(node.ctx, ast.Load):
                    found.add(node.id)
                else:
                    bound.add(node.id)
        elif isinstance(node, ast.arg):
            if node.arg in names:
                bound.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            strings.append(node.value)
    for text in strings:
        words = set(re.findall(r"\b[^\W\d]\w*", text)) & names - found
        if words:
            found |= words & _annotation_words(tree, names)
    if bound & found:
        from ..scopes import global_names

        precise = {name.id for name in global_names(tree) if isinstance(name.ctx, ast.Load)}
        found -= (bound & found) - precise
    return found


def _annotation_words(tree: ast.AST, names: set[str]) -> set[str]:
    """The names in annotations that are written as strings."""
    found: set[str] = set()
    for node in ast.walk(tree):
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            for inner in ast.walk(annotation):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    found |= set(re.findall(r"\b[^\W\d]\w*", inner.value))
    return found & names


__all__ = ["Candidate", "candidates", "lexical", "select", "used"]
