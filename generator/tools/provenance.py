"""Where every line of an output comes from: recomputed from what the passes remember, never stored.

The passes keep an origin for each line (`Text.origins`); `carry.py` takes it through the formatter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..diagnostics import CompileError, Diagnostic
from ..dialect import Trace
from ..parse import Definition
from ..pipeline import Result, compile_project
from ..project import HERE, Project
from ..registry import registry_path
from ..render import TEMPLATES
from ..text import Origin, origins_of
from ..unit import Unit
from .carry import Kind, Line, carry, import_lines

PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


def trace_project(project: Project, path: str) -> Trace:
    """Where the lines of the output at `path` come from; refused if no definition makes it."""
    result = compile_project(project)
    if path not in result.outputs:
        remedy = f"the generated files are {', '.join(sorted(result.outputs))}"
        unknown = Diagnostic("UB026", f"no definition makes `{path}`", remedy, path)
        raise CompileError(*(result.diagnostics or [unknown]))
    modules = next((unit.graph.modules for unit in result.units.values()), {})

    def read(file: str) -> str:
        if file in modules:
            return modules[file].text.text
        bases = (project.root, HERE.parent.parent.resolve())
        return next((base / file).read_text(encoding="utf-8") for base in bases if (base / file).is_file())

    lines = trace_output(project, result, path)

    def at(number: int) -> tuple[Line, list[tuple[str, str]]]:
        line = lines[number - 1]
        return line, lineage(result.units, line.space, line.name, line.origins[0]) if line.name else []

    name = next((unit.source.name for unit in result.units.values() if unit.source.output == path), "")
    return Trace(result.outputs[path], at, read, name)


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
    return carry(text, unit.text, _fill(project, "module.py.j2", rows, made, _headers(unit)))


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
        lines = [
            Line(_kind(unit, origin), origins_of(origin), part.space, definition.name)
            for origin in definition.text.origins
        ]
        if definition.kind == "class":  # its bases come from the classes that were merged into it
            number = definition.node.lineno - 1
            roles = (role.text.origins[role.node.lineno - 1] for role in unit.filled.get(definition.name, ()))
            origins = (*lines[number].origins, *_headers_above(units, part.space, definition.name), *roles)
            lines[number] = replace(lines[number], origins=tuple(dict.fromkeys(origins)))
        yield definition.text.text, lines


def _kind(unit: Unit, origin: Origin) -> Kind:
    if origin.path.startswith("templates/"):
        return "template"
    return "core" if origin.path in unit.graph.core else "definition"


def _headers_above(units: dict[str, Unit], space: str, name: str) -> Iterator[Origin]:
    """The first lines of the classes that a class was merged from or is a copy of, and of those that they were."""
    for parent, original in above(units, space, name):
        written = units[parent].module.definitions.get(original)
        if written is not None:
            yield written.text.origins[written.node.lineno - 1]
        yield from _headers_above(units, parent, original)


def _import_lines(unit: Unit) -> list[Line]:
    places = {
        name: [Origin(e.place.path, e.place.line) for e in entries if e.place is not None]
        for name, entries in unit.imports.items()
    }
    return import_lines(unit.import_block.split("\n"), places)


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
