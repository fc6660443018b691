"""Where every line of an output comes from: recomputed from what the passes remember, never stored.

The passes keep an origin for each line (`Text.origins`). What follows them changes layout only: the formatter moves line ends,
quotes, parentheses and commas. So the text before and the text after it are laid side by side without these characters, and each
line gets the origins of the characters that it is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..parse import Definition
from ..pipeline import Result
from ..project import Project
from ..registry import registry_path
from ..render import TEMPLATES
from ..text import Origin, origins_of
from ..unit import Unit

Kind = Literal["definition", "core", "import", "template"]
LAYOUT = re.compile(r"[\s(),;\"'\\]+")  # what a formatter moves, adds and removes
PLACEHOLDER = re.compile(r"\{\{.*?\}\}")
WINDOW, REACH = 12, 400  # characters that must agree to take up a lost thread, and how far to look for them


@dataclass(frozen=True)
class Line:
    """What a line of an output is made from; the first origin is that of its first word."""

    kind: Kind
    origins: tuple[Origin, ...]
    space: str = ""  # the definition or core file whose member it belongs to
    name: str = ""  # that member, as the output calls it


def trace_output(project: Project, result: Result, path: str) -> list[Line]:
    """One entry for each line of the output at `path`."""
    text = result.outputs[path]
    unit = next((unit for unit in result.units.values() if unit.source.output == path), None)
    if unit is not None:
        return trace(text, unit, result.units)
    parts = {name: line for unit in result.units.values() for name, line in _headers(unit).items()}
    template = "registry.py.j2" if path == registry_path(project) else "names.pyi.j2"
    rows = text.split("\n")
    return _fill(project, template, rows, [None] * len(rows), parts)


def trace(text: str, unit: Unit, units: dict[str, Unit]) -> list[Line]:
    """One entry for each line of `text`, which is the unit's text after formatting; `units` are all of its run, by path."""
    project = unit.graph.project
    rows = unit.text.split("\n")
    made: list[Line | None] = [None] * len(rows)
    position = line = 0
    for piece, entries in _pieces(unit, units):
        start = unit.text.index(piece, position)
        line += unit.text.count("\n", position, start)
        made[line : line + len(entries)] = entries
        line += len(entries) - 1
        position = start + len(piece)
    return _carry(text, unit.text, _fill(project, "module.py.j2", rows, made, _headers(unit)))


def lineage(units: dict[str, Unit], space: str, name: str, origin: Origin) -> list[tuple[str, str]]:
    """The members (definition, name) through which a line came, from the output's own to the one that was written.

    An override keeps the chain short: a line that the child wrote came through nobody.
    """
    trails = [[(space, name)]]
    seen = {(space, name)}
    for trail in trails:
        if _wrote(units, *trail[-1], origin):
            return trail
        for step in above(units, *trail[-1]):
            if step not in seen:
                seen.add(step)
                trails.append([*trail, step])
    return trails[0]


def above(units: dict[str, Unit], space: str, name: str) -> Iterator[tuple[str, str]]:
    """The members that a member was merged from or derived from, the first base first."""
    unit = units.get(space)
    if unit is None:
        return
    for base in unit.bases.get(name, {}).values():
        yield base.path, base.name
    for branch, roles in unit.roles.items():
        yield from ((branch.parent, original) for original, ours in roles.items() if ours == name)


def _wrote(units: dict[str, Unit], space: str, name: str, origin: Origin) -> bool:
    if space != origin.path or space not in units:
        return False
    definition = units[space].module.definitions.get(name)
    return definition is not None and origin in definition.text.origins


def _pieces(unit: Unit, units: dict[str, Unit]) -> Iterator[tuple[str, list[Line]]]:
    """The texts that the template is filled with, in its order, with an entry for each of their lines."""
    docstring, path = unit.module.docstring, unit.source.path
    if docstring is not None:
        yield docstring.text, [Line("definition", (origin,), path) for origin in docstring.origins]
    if unit.import_block:
        yield unit.import_block, _import_lines(unit)
    for part in unit.ordered:
        definition = part.definition
        kind: Kind = "core" if part.space in unit.graph.core else "definition"
        lines = [
            Line(
                "template" if origin.path.startswith("templates/") else kind,
                origins_of(origin),
                part.space,
                definition.name,
            )
            for origin in definition.text.origins
        ]
        if definition.kind == "class":  # its bases come from the classes that were merged into it
            number = definition.node.lineno - 1
            origins = (*lines[number].origins, *_headers_above(units, part.space, definition.name))
            lines[number] = replace(lines[number], origins=tuple(dict.fromkeys(origins)))
        yield definition.text.text, lines


def _headers_above(units: dict[str, Unit], space: str, name: str) -> Iterator[Origin]:
    """The first lines of the classes that a class was merged from or is a copy of, and of those that they were."""
    for parent, original in above(units, space, name):
        written = units[parent].module.definitions.get(original)
        if written is not None:
            yield written.text.origins[written.node.lineno - 1]
        yield from _headers_above(units, parent, original)


def _import_lines(unit: Unit) -> list[Line]:
    """An import comes from the statements that asked for its names; a line without a name (`try:`) goes with its neighbour."""
    places = {
        name: [Origin(e.place.path, e.place.line) for e in entries if e.place is not None]
        for name, entries in unit.imports.items()
    }
    rows = unit.import_block.split("\n")
    found = [[o for name in _bound(row) for o in places.get(name, ())] for row in rows]
    for index in reversed(range(len(rows))):
        found[index] = found[index] or (found[index + 1] if index + 1 < len(rows) else found[index])
    for index in range(1, len(rows)):
        found[index] = found[index] or found[index - 1]
    return [Line("import", tuple(dict.fromkeys(origins))) for origins in found]


def _bound(row: str) -> list[str]:
    """The names that a line of an import block binds."""
    before, found, after = row.partition("import ")
    if not found:
        return re.findall(r"\w+", before)
    return [entry.split(" as ")[-1].partition(".")[0].strip() for entry in after.split(",")]


def _headers(unit: Unit) -> dict[str, Line]:
    """For each class and function of an output the line that names it, for tables that list it."""
    return {name: _header(unit, part.space, part.definition) for name, part in unit.parts.items()}


def _header(unit: Unit, space: str, definition: Definition) -> Line:
    kind: Kind = "core" if space in unit.graph.core else "definition"
    return Line(kind, (definition.text.origins[definition.node.lineno - 1],), space, definition.name)


def _fill(
    project: Project, template: str, rows: Sequence[str], made: Sequence[Line | None], parts: dict[str, Line]
) -> list[Line]:
    """The entries, with the template's line where there is none; a row that lists a member has the member's origin."""
    path = project.display(TEMPLATES / template)
    patterns = _patterns(template)
    lines = []
    for row, entry in zip(rows, made, strict=True):
        if entry is None:
            number, names = next((n, m.groups()) for pattern, n in patterns if (m := pattern.fullmatch(row)))
            listed = [parts[name] for name in names if name in parts]
            origin = Origin(path, number)
            entry = (
                replace(listed[-1], origins=(*listed[-1].origins, origin)) if listed else Line("template", (origin,))
            )
        lines.append(entry)
    return lines


def _patterns(template: str) -> list[tuple[re.Pattern[str], int]]:
    """What each line of a template can become, the most definite first."""
    found = []
    for number, row in enumerate((TEMPLATES / template).read_text(encoding="utf-8").split("\n"), start=1):
        if "{%" not in row or row.strip() == "":
            static = PLACEHOLDER.split(row)
            rank = (-sum(map(len, static)), len(static), number)
            found.append((rank, re.compile("(.*?)".join(map(re.escape, static)))))
    return [(pattern, rank[-1]) for rank, pattern in sorted(found, key=lambda entry: entry[0])]


def _carry(text: str, before: str, made: list[Line]) -> list[Line]:
    """The entries of the text before formatting carried over to the lines of the text after it."""
    rows, old_rows = text.split("\n"), before.split("\n")
    characters, places = _strip(rows)
    old_characters, old_places = _strip(old_rows)
    sources: list[dict[int, None]] = [{} for _ in rows]
    for place, index in zip(places, _pair(characters, old_characters), strict=True):
        sources[place].setdefault(old_places[index])
    lines: list[Line] = []
    last = 0
    for row, found in zip(rows, sources, strict=True):
        if found:
            entries = [made[index] for index in found]
            origins = dict.fromkeys(origin for entry in entries for origin in entry.origins)
            lines.append(replace(entries[0], origins=tuple(origins)))
            last = max(found)
        else:  # a blank line, or one of brackets and quotes
            if last + 1 < len(old_rows) and old_rows[last + 1].strip() == row.strip():
                last += 1
            lines.append(made[last])
    return lines


def _strip(rows: Sequence[str]) -> tuple[str, list[int]]:
    """The characters that a formatter leaves alone, in lower case, and the index of each one's row."""
    kept = [LAYOUT.sub("", row).lower() for row in rows]
    return "".join(kept), [index for index, row in enumerate(kept) for _ in row]


def _pair(new: str, old: str) -> list[int]:
    """For each character of `new` the index of the one in `old` that it was; both are alike but for rare, short pieces."""
    if new == old:
        return list(range(len(old)))
    found: list[int] = []
    at = 0
    while len(found) < len(new):
        here = len(found)
        if at < len(old) and new[here] == old[at]:
            found.append(at)
            at += 1
            continue
        skip, jump = next(
            (
                (skip, reach - skip)
                for reach in range(1, REACH)
                for skip in range(reach + 1)
                if new[here + skip : here + skip + WINDOW] == old[at + reach - skip : at + reach - skip + WINDOW] != ""
            ),
            (len(new) - here, 0),
        )
        found += [min(at, len(old) - 1)] * skip
        at += jump
    return found
