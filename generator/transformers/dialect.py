"""The dialect of transformers: a definition makes several files, and inherits from files that nothing may have made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics import CompileError, Diagnostic
from ..dialect import Dialect, Trace
from ..discover import Source, select
from ..garbage import uncollected
from ..progress import Seen
from ..project import Project
from ..write import Change, read_file
from .convert import output_path
from .layout import is_generated
from .library import Library
from .names import TYPES
from .parents import definition_of, parents
from .pipeline import Result, convert_tree
from .record import Record

if TYPE_CHECKING:
    from ..session import Session
    from ..tools.family_tree import Tree


@dataclass(frozen=True)
class Converted(Result):
    """What was asked for, and what had to be made for it."""

    record: Record | None = None
    every: Mapping[str, str] | None = None  # the outputs with those of parents that nobody asked for


class Transformers(Dialect[Converted]):
    """The conversion is in `pipeline.py`; what need not be converted again is kept for each definition."""

    @uncollected()
    def compile(
        self,
        project: Project,
        names: list[str],
        jobs: int = 1,
        seen: Seen | None = None,
        session: Session | None = None,
        anew: bool = False,
    ) -> Converted:
        library = open_library(project)
        sources = discover(library)
        everything = [source.path for source in sources.values()]
        wanted = [sources[key].path for key in select(sources, names)] if names else everything
        settings = library.style, library.quirks
        record = Record(library.root, None, *settings) if anew else Record.of(library.root, *settings)
        record.note(everything)
        fresh = {path: outputs for path in everything if (outputs := record.outputs(path)) is not None}
        found = _convert(library, wanted, fresh, jobs, record, seen or (lambda done, total: None))
        chosen = set(wanted)
        return Converted(
            {path: text for path, text in found.outputs.items() if found.sources[path] in chosen},
            found.diagnostics,
            not names and not found.diagnostics,
            tuple(
                path for definition in wanted if definition not in found.inputs for path in fresh.get(definition, ())
            ),
            len(wanted),
            found.sources,
            found.inputs,
            found.converted,
            record,
            found.outputs,
        )

    def is_ours(self, text: str) -> bool:
        return is_generated(text)

    def orphans(self, project: Project, made: Collection[str]) -> list[str]:
        found = []
        for file in project.root.rglob("*.py"):
            path = file.relative_to(project.root).as_posix()
            if path in made or file.name.startswith(("modular_", "__init__")) or "_" not in file.name:
                continue
            with file.open(encoding="utf-8", errors="replace") as stream:
                head = stream.read(1000)
            if is_generated(head) and "modular_" in head:
                found.append(path)
        return sorted(found)

    def folders(self, project: Project) -> list[Path]:
        return [project.root]

    def remember(self, project: Project, result: Converted, changes: Sequence[Change], start: int) -> None:
        record = result.record
        made: dict[str, list[str]] = {}
        for path in result.every or ():
            made.setdefault(result.sources[path], []).append(path)
        for definition in result.converted:
            outputs = {path: (result.every or {})[path] for path in made.get(definition, ())}
            if record and all(read_file(project.root / path) == text for path, text in outputs.items()):
                record.remember(definition, [definition, *result.inputs[definition]], outputs)
        if record and made:
            record.save()

    def why(self, project: Project, result: Converted, path: str) -> list[str]:
        return chains(project.root, result, path)

    def outputs_of(self, result: Converted, name: str) -> dict[str, str]:
        found = [name] if name in result.outputs else sorted(result.outputs)
        return {path: path for path in found}

    def trace(self, project: Project, path: str) -> Trace:
        from .provenance import trace

        library = open_library(project)
        sources = discover(library)
        maker = next((s.path for s in sources.values() if path in (s.output, *s.others)), None)
        if maker is None:
            remedy = "name a file that a definition makes, such as `gemma2/modeling_gemma2.py`"
            raise CompileError(Diagnostic("UB026", f"no definition makes `{path}`", remedy, path))
        return trace(library, path, maker)

    def family_tree(self, project: Project, names: list[str], classes: bool) -> tuple[Tree, Sequence[Diagnostic]]:
        from .relations import read_tree

        library = open_library(project)
        sources = discover(library)
        wanted = {sources[key].path for key in select(sources, names)} if names else None
        return read_tree(library, [source.path for source in sources.values()], wanted, classes)


def open_library(project: Project) -> Library:
    """The files of a project; refused where its folder is not there."""
    if not project.root.is_dir():
        name = project.root.name
        raise CompileError(Diagnostic("UB020", "there is no such folder", "name the folder of the models", name))
    return Library(project.root, project.quirks, (project.formatter, project.line_length))


def discover(library: Library) -> dict[str, Source]:
    """All definitions below the folder by key, in order of their paths."""
    found = {}
    for path in library.definitions():
        folder, _, name = path.rpartition("/")
        outputs = [output_path(path, kind) for kind in TYPES]
        key = f"{folder}/{name}".removeprefix("/").replace("modular_", "").removesuffix(".py")
        found[key] = Source(key, library.root / path, path, outputs[0], tuple(outputs[1:]))
    return found


def _convert(
    library: Library, wanted: list[str], fresh: Mapping[str, list[str]], jobs: int, record: Record, seen: Seen
) -> Result:
    """The wanted definitions that are not fresh, and the fresh ones below which something has changed, converted."""
    inputs: dict[str, list[str]] = {}
    pending = list(wanted)
    while pending:
        path = pending.pop()
        if path not in inputs:
            inputs[path] = record.inputs(path) if path in fresh else _inputs(library, path)
            pending += [d for parent in inputs[path] if (d := definition_of(library, parent))]
    record.note(file for files in inputs.values() for file in files if library.inside(file))
    needed = [path for path in sorted(inputs) if path not in fresh]
    result = convert_tree(library, needed, jobs, fresh.keys(), seen)
    changed = {path for path, text in result.outputs.items() if read_file(library.root / path) != text}
    heirs: set[str] = set()
    while new := {p for p in inputs if p in fresh and p not in heirs and not changed.isdisjoint(inputs[p])}:
        heirs |= new
        changed |= {output for path in new for output in fresh[path]}
    if heirs:
        result = convert_tree(library, sorted({*needed, *heirs}), jobs, fresh.keys() - heirs, seen)
    return result


def _inputs(library: Library, path: str) -> list[str]:
    try:
        return [parent for parent in parents(library, path) if parent != path]
    except CompileError:
        return []


def chains(root: Path, result: Converted, name: str) -> list[str]:
    """The shortest chains from a stale output to what has changed, one a row: to each file that differs from the last good run.

    Where no such run is on record, the chain ends in everything that could have changed.
    """
    stale = {path for path, text in (result.every or {}).items() if read_file(root / path) != text}
    rows: list[str] = []
    seen = {name}
    pending = [[name]]
    while pending:
        chain = pending.pop(0)
        definition = result.sources.get(chain[-1])
        if definition is None or result.record is None:
            continue
        above = result.inputs.get(definition, [])
        ends = [path for path in result.record.changed(definition) if path not in stale and path not in seen]
        seen.update(ends)
        rows += [" <- ".join([*chain, end]) for end in ends]
        through = [path for path in above if path in stale and path not in seen]
        if not ends and not through and not rows and not pending:
            rows.append(" <- ".join([*chain, " or ".join([definition, *(p for p in above if p not in stale)])]))
        seen.update(through)
        pending += [[*chain, path] for path in through]
    return rows
