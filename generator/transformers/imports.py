"""The import statements of an output: who may provide a name, and which providers are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .parents import Parent, is_model_import
from .renaming import View
from .source import Alias, Guard, Import, Source
from .usage import used

_ELIF = re.compile(r"^elif ([^\n]*):", re.MULTILINE)


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
    found += [Candidate("", [Import("", 1, created[name], [Alias(name, None)], "")]) for name in sorted(created)]
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
    word = view.renamer.word
    lead = "\n".join("" if "# Copied from" in row else change(row) for row in entry.lead.split("\n"))
    if entry.level == 0 and entry.module is not None:
        return Import(lead, 0, entry.module, entry.aliases, change(entry.trail), entry.origin)
    whole = view.absolute(entry.level, entry.module) if entry.module is not None else None
    if whole is not None:
        return Import(lead, 0, whole, entry.aliases, change(entry.trail), entry.origin)
    aliases = [Alias(_dotted(word, a.name), word(a.bound) if a.bound else None, a.line) for a in entry.aliases]
    module = view.repair_module(_dotted(word, entry.module)) if entry.module is not None else None
    return Import(lead, entry.level, module, aliases, change(entry.trail), entry.origin)


def _dotted(word: Callable[[str], str], name: str) -> str:
    return ".".join(map(word, name.split(".")))


def select(found: list[Candidate], pieces: list[str], defined: set[str]) -> list[Candidate]:
    """The imports that the definitions need, with the names that it needs: the first provider of a name wins."""
    provided = {alias.local for c in found for entry in c.imports for alias in entry.aliases}
    tests = {
        word for c in found if c.test for word in re.findall(r"\w+", c.test + " ".join(_ELIF.findall(c.rest)))
    } & provided
    wanted = (used(provided, pieces) | tests) - defined
    kept: set[str] = set()
    plain: list[Candidate] = []
    guarded: list[Candidate] = []
    for candidate in found:
        imports = [entry for inner in candidate.imports if (entry := _filtered(inner, wanted, kept))]
        if imports:
            group = plain if candidate.test is None else guarded
            group.append(Candidate(candidate.lead, imports, candidate.test, candidate.rest))
    return plain + guarded


def _filtered(entry: Import, wanted: set[str], kept: set[str]) -> Import | None:
    names = [alias for alias in entry.aliases if alias.local in wanted and alias.local not in kept]
    kept.update(alias.local for alias in names)
    return Import(entry.lead, entry.level, entry.module, names, entry.trail, entry.origin) if names else None


def render(kept: list[Candidate]) -> str:
    """The text of the imports; statements on one line each, which the formatter breaks."""
    rows = []
    for candidate in kept:
        if candidate.test is None:
            entry = candidate.imports[0]
            rows.append(candidate.lead + entry.render(entry.aliases))
        else:
            body = "\n".join(f"{inner.lead}    {inner.render(inner.aliases)}" for inner in candidate.imports)
            rest = f"\n{candidate.rest}" if candidate.rest else ""
            rows.append(f"{candidate.lead}if {candidate.test}:\n{body}{rest}")
    return "".join(f"{row}\n" for row in rows)
