"""`unibody check`, `generate` and `lint` for the transformers dialect."""

from __future__ import annotations

import difflib
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..diagnostics import CompileError, Diagnostic
from ..report import FINE, UNUSABLE, VERDICTS, WRONG, Format, publish, refuse, refuse_as
from ..write import Change, replace_file
from .cache import Cache
from .corpus import Result, convert_tree, no_collection
from .layout import is_generated
from .library import Library
from .lint import as_baseline, as_json, less_baseline
from .lint import lint as findings
from .parents import definition_of, parents


@dataclass
class Finding:
    """What a run found: the changes by output, the errors, and how much there was to do."""

    definitions: int = 0
    changes: list[Change] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    result: Result = field(default_factory=Result)
    orphans: list[str] = field(default_factory=list)


def check(
    root: Path,
    names: list[str],
    report: Path | None = None,
    jobs: int = 1,
    cache: Cache | None = None,
    form: Format = "text",
) -> int:
    """Compare the files of a tree of models with what its definitions convert to; 0 when equal, 1 when not, 2 when unusable."""
    try:
        store = cache or Cache.of(root)
        found = compare(root, names, jobs, store)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    if report is not None:
        report.write_text(json.dumps(as_report(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    different = [change for change in found.changes if change.kind != "unchanged"]
    status = WRONG if different or found.diagnostics or found.orphans else FINE
    if form != "text":
        remedy = "; run: unibody generate --dialect transformers" if form == "github" else ""
        files = [(change.path, VERDICTS[change.kind] + remedy) for change in different]
        return _publish(root, found, [*files, *((path, "orphaned") for path in found.orphans)], status, form)
    for change in different:
        print(f"{VERDICTS[change.kind]}: {change.path}")
        for row in why(root, found, change.path, store):
            print(f"  {row}")
        if names and change.current is not None:
            print("\n".join(difference(change)))
    for path in found.orphans:
        print(f"orphaned: {path}")
    if found.diagnostics:
        refuse(found.diagnostics, WRONG)
    total = len(found.changes)
    print(
        f"{found.definitions} definitions, {total} files: {total - len(different)} identical, {len(different)} differ"
    )
    return status


def generate(root: Path, names: list[str], output: Path | None = None, jobs: int = 1, form: Format = "text") -> int:
    """Write what the definitions convert to, below `root` or another folder; 0 when all were converted, 1 when not."""
    try:
        found = compare(root, names, jobs, None, output)
        in_the_way = [
            Diagnostic("UB024", "a file that no conversion wrote is in the way", "move it away", change.path)
            for change in found.changes
            if change.kind == "updated" and change.current is not None and not is_generated(change.current)
        ]
        if in_the_way:
            return refuse_as(in_the_way, UNUSABLE, form)
        for change in found.changes:
            if change.kind != "unchanged" and change.expected is not None:
                file = (output or root) / change.path
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, change.expected)
                if form == "text":
                    print(f"{change.kind} {change.path}")
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    except OSError as error:
        remedy = "make the folder writable and run again"
        name = Path(error.filename or root).name
        failed = [Diagnostic("UB022", f"cannot write `{name}`: {error.strerror}", remedy, name)]
        return refuse_as(failed, UNUSABLE, form)
    if form != "text":
        done = [(change.path, change.kind) for change in found.changes if change.kind != "unchanged"]
        return _publish(root, found, done, WRONG if found.diagnostics else FINE, form)
    counts = {kind: sum(c.kind == kind for c in found.changes) for kind in ("created", "updated", "unchanged")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return refuse(found.diagnostics, WRONG) if found.diagnostics else FINE


def _publish(root: Path, found: Finding, files: list[tuple[str, str]], status: int, form: Format) -> int:
    """For programs, whose paths start where the command runs."""
    base = Path(os.path.relpath(root))
    placed = [replace(d, path=(base / d.path).as_posix()) for d in found.diagnostics]
    return publish(placed, [((base / path).as_posix(), state) for path, state in files], status, form)


@no_collection()
def compare(
    root: Path, names: list[str], jobs: int = 1, cache: Cache | None = None, output: Path | None = None
) -> Finding:
    """What the definitions, all or those named, convert to, beside what is on disk; the cache tells what need not be converted."""
    if not root.is_dir():
        raise CompileError(Diagnostic("UB020", "there is no such folder", "name the folder of the models", root.name))
    library = Library(root)
    everything = library.definitions()
    wanted = select(library, everything, names)
    found = Finding(definitions=len(wanted))
    fresh: dict[str, list[str]] = {}
    if cache is not None:
        fresh = {path: outputs for path in everything if (outputs := cache.outputs(path)) is not None}
    result = found.result = _convert(library, wanted, fresh, jobs, cache)
    found.diagnostics = result.diagnostics
    chosen = set(wanted)
    for path in wanted:
        for name in fresh.get(path, []) if path not in result.parents else []:
            found.changes.append(Change(name, "unchanged", None, None))
    for name, expected in result.outputs.items():
        current = _text((output or root) / name)
        kind = "created" if current is None else "unchanged" if current == expected else "updated"
        if result.sources[name] in chosen:
            found.changes.append(Change(name, kind, current, expected))
    found.changes.sort(key=lambda change: change.path)
    if not names and output is None:
        made = {change.path for change in found.changes}
        found.orphans = _orphans(root, made, {d.path for d in found.diagnostics}, library)
    if cache is not None:
        _remember(cache, result, root)
    return found


def _convert(
    library: Library, wanted: list[str], fresh: dict[str, list[str]], jobs: int, cache: Cache | None
) -> Result:
    """The wanted definitions that are not fresh, and the fresh ones below which something has changed, converted."""
    inputs: dict[str, list[str]] = {}
    pending = list(wanted)
    while pending:
        path = pending.pop()
        if path not in inputs:
            inputs[path] = cache.inputs(path) if cache and path in fresh else _inputs(library, path)
            pending += [d for parent in inputs[path] if (d := definition_of(library, parent))]
    needed = [path for path in sorted(inputs) if path not in fresh]
    result = convert_tree(library, needed, jobs, trusted=fresh.keys())
    changed = {path for path, text in result.outputs.items() if _text(library.root / path) != text}
    heirs: set[str] = set()
    while new := {p for p in inputs if p in fresh and p not in heirs and not changed.isdisjoint(inputs[p])}:
        heirs |= new
        changed |= {output for path in new for output in fresh[path]}
    if heirs:
        result = convert_tree(library, sorted({*needed, *heirs}), jobs, trusted=fresh.keys() - heirs)
    return result


def _inputs(library: Library, path: str) -> list[str]:
    try:
        return [parent for parent in parents(library, path) if parent != path]
    except CompileError:
        return []


def _remember(cache: Cache, result: Result, root: Path) -> None:
    outputs: dict[str, list[str]] = {}
    for name, path in result.sources.items():
        outputs.setdefault(path, []).append(name)
    for path, names in outputs.items():
        if path in result.done and all(_text(root / name) == result.outputs[name] for name in names):
            cache.remember(path, [path, *result.parents[path]], names)
    if outputs:
        cache.save()


def select(library: Library, everything: list[str], names: list[str]) -> list[str]:
    """The definitions that some names mean: `gemma2`, a path below the root, or the path of a file."""
    if not names:
        return everything
    found = []
    for name in names:
        matching = [
            path
            for path in everything
            if name
            in (path, path.rpartition("/")[2], path.rpartition("/")[2].removeprefix("modular_").removesuffix(".py"))
            or Path(name).resolve() == (library.root / path).resolve()
        ]
        if not matching:
            near = difflib.get_close_matches(f"modular_{name}.py", [path.rpartition("/")[2] for path in everything], 1)
            hint = f"did you mean `{near[0][8:-3]}`?" if near else "name a definition, such as `gemma2`"
            raise CompileError(Diagnostic("UB023", f"there is no definition `{name}`", hint, name))
        found += matching
    return list(dict.fromkeys(found))


def why(root: Path, found: Finding, name: str, cache: Cache) -> list[str]:
    """The shortest chains from a stale output to what has changed, one a row: to each file that differs from the last good run.

    Where no such run is on record, the chain ends in everything that could have changed.
    """
    stale = {path for path, text in found.result.outputs.items() if _text(root / path) != text}
    rows: list[str] = []
    seen = {name}
    pending = [[name]]
    while pending:
        chain = pending.pop(0)
        definition = found.result.sources.get(chain[-1])
        if definition is None:
            continue
        above = found.result.parents.get(definition, [])
        ends = [path for path in cache.changed(definition) if path not in stale and path not in seen]
        seen.update(ends)
        rows += [" <- ".join([*chain, end]) for end in ends]
        through = [path for path in above if path in stale and path not in seen]
        if not ends and not through and not rows and not pending:
            rows.append(" <- ".join([*chain, " or ".join([definition, *(p for p in above if p not in stale)])]))
        seen.update(through)
        pending += [[*chain, path] for path in through]
    return rows


def difference(change: Change) -> list[str]:
    """The rows of a unified diff from what is on disk to what is expected."""
    current, expected = (change.current or "").splitlines(), (change.expected or "").splitlines()
    return list(
        difflib.unified_diff(current, expected, f"{change.path} (current)", f"{change.path} (expected)", lineterm="")
    )


def as_report(found: Finding) -> dict[str, object]:
    """The findings as one JSON document, with what the run cost."""
    import resource  # not on every platform; only a report needs it

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(own.ru_maxrss, children.ru_maxrss) / (1024 if sys.platform != "darwin" else 1024 * 1024)
    differs = []
    for change in found.changes:
        if change.kind != "unchanged":
            rows = zip((change.current or "").split("\n"), (change.expected or "").split("\n"), strict=False)
            first = next((n for n, (a, b) in enumerate(rows, start=1) if a != b), 1)
            differs.append({"path": change.path, "line": first, "diff": "\n".join(difference(change))})
    return {
        "definitions": found.definitions,
        "outputs": len(found.changes),
        "identical": sum(change.kind == "unchanged" for change in found.changes),
        "differs": differs,
        "orphans": found.orphans,
        "errors": [{"file": d.path, "line": d.line, "message": d.message} for d in found.diagnostics],
        "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2),
        "peak_mb": round(peak, 1),
    }


def _orphans(root: Path, made: set[str], refused: set[str], library: Library) -> list[str]:
    """Files that say that a definition made them, and none does; those of a refused definition do not count."""
    found = []
    for file in root.rglob("*.py"):
        path = file.relative_to(root).as_posix()
        if path in made or file.name.startswith(("modular_", "__init__")) or "_" not in file.name:
            continue
        with file.open(encoding="utf-8", errors="replace") as stream:
            head = stream.read(1000)
        if is_generated(head) and "modular_" in head:
            definition = definition_of(library, path)
            if definition is None or library.shown(definition) not in refused:
                found.append(path)
    return sorted(found)


def _text(file: Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def lint(
    root: Path,
    names: list[str],
    form: Format = "text",
    baseline: Path | None = None,
    write_baseline: bool = False,
) -> int:
    """Print what the conversion of the definitions corrupts or drops; 0 when nothing, 1 when something, 2 when unusable."""
    try:
        library = Library(root)
        paths = select(library, library.definitions(), names)
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    found = findings(library, paths)
    if write_baseline and baseline is not None:
        baseline.write_text(as_baseline(found), encoding="utf-8")
        print(f"{len(found)} findings written to {baseline.name}")
        return FINE
    found = less_baseline(found, baseline)
    if form == "json":
        print(as_json(found))
    for remark in found if form != "json" else ():
        print(remark.as_github() if form == "github" else remark)
    if form == "text":
        print(f"{len(found)} finding{'s' if len(found) != 1 else ''} in {len(paths)} definitions")
    return WRONG if found else FINE
