"""What the conversion of a definition does that its writer may not have meant: found, placed, and how to avoid it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..diagnostics import CompileError, Diagnostic, point
from ..discover import select
from ..project import Project, find_project
from ..report import FINE, UNUSABLE, WRONG, Format, located, publish, refuse_as, warn
from ..text import Rows
from .checks import provided_names
from .convert import Conversion
from .dialect import discover, open_library
from .library import Library
from .renaming import View

REMEDIES = {
    "TD001": "rename the class, or write the definition without inheriting",
    "TD002": "write the method out, or say it in another way",
    "TD003": "write one of the two methods out",
    "TD004": "write `super().method(…)` alone on its line, or write the body out",
    "TD005": "write `NAME = value`, a class, a function or an import",
    "TD006": "one empty line above, no decorator, `def` on one line, `raise` right below",
    "TD007": "move them into the docstring, or above the first attribute",
    "TD008": "give all heirs of this parent names that begin with the model's",
    "TD009": "take the name out",
    "TD010": "keep one of the two",
}
_IGNORE = re.compile(r"#\s*unibody:\s*ignore(?:\[([\w, ]+)\])?")


def lint_project(
    names: list[str],
    project: Path | Project,
    form: Format = "text",
    baseline: Path | None = None,
    write_baseline: bool = False,
) -> int:
    """Print what the conversion of the definitions corrupts or drops; 0 when nothing, 1 when something, 2 when unusable."""
    try:
        chosen = find_project(project)
        library = open_library(chosen)
        sources = discover(library)
        paths = [sources[key].path for key in (select(sources, names) if names else sources)]
        known = read_baseline(baseline) if baseline and not write_baseline else []
    except CompileError as error:
        return refuse_as(error.diagnostics, UNUSABLE, form)
    found = lint(library, paths)
    if write_baseline and baseline is not None:
        baseline.write_text(as_baseline(found), encoding="utf-8")
        print(f"{len(found)} findings written to {baseline.name}")
        return FINE
    found = located(chosen, less_baseline(found, known))[0]
    status = WRONG if found else FINE
    return warn(found, status) if form == "text" else publish(found, [], status, form)


def lint(library: Library, paths: Sequence[str]) -> list[Diagnostic]:
    """The findings in some definitions, less those that a comment in the definition suppresses; a refused definition has none."""
    found: list[Diagnostic] = []
    for path in paths:
        try:
            conversion = Conversion(library, path)
            texts = conversion.outputs()
        except CompileError:
            continue
        rows = conversion.source.rows
        found += [remark for remark in dict.fromkeys(_findings(conversion, texts)) if not _suppressed(rows, remark)]
    return found


def read_baseline(file: Path) -> list[str]:
    """The findings that a baseline file lists; none where it is not there yet."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    except (OSError, ValueError) as error:
        remedy = "mend the file, or make it again with --write-baseline"
        raise CompileError(Diagnostic("UB002", f"cannot read the baseline: {error}", remedy, str(file))) from None
    return [str(entry) for entry in found]


def less_baseline(found: Sequence[Diagnostic], known: Sequence[str]) -> list[Diagnostic]:
    """The findings that a baseline does not list; each entry stands for one finding."""
    left = Counter(known)
    new = []
    for remark in found:
        if left[_key(remark)] > 0:
            left[_key(remark)] -= 1
        else:
            new.append(remark)
    return new


def as_baseline(found: Sequence[Diagnostic]) -> str:
    """The text of a baseline file that lists the findings."""
    return json.dumps(sorted(map(_key, found)), indent=2, ensure_ascii=False) + "\n"


def _key(remark: Diagnostic) -> str:
    """What tells a finding from others in a baseline: lines may move."""
    return f"{remark.path}: {remark.code}: {remark.message}"


def _findings(conversion: Conversion, texts: dict[str, str]) -> Iterator[Diagnostic]:
    source = conversion.source

    def remark(code: str, offset: int, message: str) -> Diagnostic:
        offset += len(source.text[offset:]) - len(source.text[offset:].lstrip())
        length = len(source.rows.row(source.rows.line(offset)))  # as far as the line goes
        return point(source.rows, offset, length, code, message, REMEDIES[code], severity="warning")

    for note in conversion.notes:
        yield remark(note.code, note.offset, note.message)
    for dropped in source.dropped:
        start = source.rows.start(dropped.line)
        indent = len(source.rows.row(dropped.line)) - len(source.rows.row(dropped.line).lstrip())
        yield remark("TD005", start + indent, f"{dropped.what} is in no output")
    for statement in source.index.repeated:
        yield remark("TD010", statement.start, f"`{statement.name}` is defined again below, and only that one counts")
    for name, tree in conversion.trees.items():
        statement = source.statements[name]
        comment = re.search(r"#[^\n]*", source.text[statement.lead : statement.start])
        inherits = any(getattr(base, "id", "") in conversion.origin for base in tree.node.bases)
        if comment and inherits:
            yield remark("TD007", statement.lead + comment.start(), f"the comment above `{name}` is in no output")
    for path, scope in conversion.scopes.items():
        parent = conversion.parents[path]
        renamer = scope.view.renamer
        if renamer is not None and renamer.new != conversion.model:
            yield remark(
                "TD008", parent.offset, f"`{parent.model}` is read as `{renamer.new}`, not as `{conversion.model}`"
            )
        known = provided_names(conversion.library.source(path))
        for name in parent.names:
            if name not in known:
                yield remark("TD009", parent.offset, f"`{name}` is not in {conversion.library.shown(path)}")
        for old, new, line in _broken_words(scope.view, texts):
            where = f"{conversion.library.shown(path)}:{line}"
            yield remark("TD001", parent.offset, f"`{old}` becomes `{new}` ({where})")


def _broken_words(view: View, texts: dict[str, str]) -> Iterator[tuple[str, str, int]]:
    """Words of a parent in which the old name is only the beginning of another word, where an output has them renamed."""
    text = view.source.text
    seen: set[str] = set()
    for start, end, new in view.hits:
        rest = re.compile(r"\w*").match(text, end)
        if not new or rest is None or not rest[0][:1].islower() or (text[start:end].islower() and rest[0] == "s"):
            continue
        before = re.search(r"\w*\Z", text[:start][-80:])
        old = f"{before[0] if before else ''}{text[start : rest.end()]}"
        word = f"{before[0] if before else ''}{new}{rest[0]}"
        if old not in seen and any(re.search(rf"\b{re.escape(word)}\b", output) for output in texts.values()):
            seen.add(old)
            yield old, word, text.count("\n", 0, start) + 1


def _suppressed(rows: Rows, remark: Diagnostic) -> bool:
    """Whether the line of a finding, or the one above, has a comment that says so."""
    for line in (remark.line, remark.line - 1):
        match = _IGNORE.search(rows.row(line)) if line >= 1 else None
        if match and (match[1] is None or remark.code in re.split(r"[,\s]+", match[1])):
            return True
    return False
