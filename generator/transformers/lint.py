"""What the conversion of a definition does that its writer may not have meant: found, placed, and how to avoid it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..diagnostics import CompileError
from .checks import provided_names
from .convert import Conversion
from .library import Library
from .renaming import View
from .source import Source

RULES = {
    "TD001": ("a word is broken by renaming", "rename the class, or write the definition without inheriting"),
    "TD002": ("a statement after `super()` is swallowed", "write the method out, or say it in another way"),
    "TD003": ("an assignment leaks into another method", "write one of the two methods out"),
    "TD004": (
        "a call of `super()` is not unfolded",
        "write `super().method(…)` alone on its line, or write the body out",
    ),
    "TD005": ("a top-level statement vanishes", "write `NAME = value`, a class, a function or an import"),
    "TD006": ("a method is not removed", "one empty line above, no decorator, `def` on one line, `raise` right below"),
    "TD007": (
        "comments above an inheriting class are lost",
        "move them into the docstring, or above the first attribute",
    ),
    "TD008": ("a prefix is inferred for a parent", "give all heirs of this parent names that begin with the model's"),
    "TD009": ("an import brings nothing", "take the name out"),
    "TD010": ("a definition is written twice", "keep one of the two"),
}
_IGNORE = re.compile(r"#\s*unibody:\s*ignore(?:\[([\w, ]+)\])?")


@dataclass(frozen=True)
class Remark:
    """One finding: which rule, where, and what was found."""

    code: str
    path: str
    line: int
    message: str

    @property
    def remedy(self) -> str:
        return RULES[self.code][1]

    @property
    def key(self) -> str:
        """What tells it from others in a baseline: lines may move."""
        return f"{self.path}: {self.code}: {self.message}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: warning[{self.code}]: {self.message}\n  = help: {self.remedy}"

    def as_github(self) -> str:
        message = f"{self.message} ({self.remedy})".replace("%", "%25").replace("\n", "%0A")
        return f"::warning file={self.path},line={self.line},title={self.code}::{message}"


def lint(library: Library, paths: Sequence[str]) -> list[Remark]:
    """The findings in some definitions, less those that a comment in the definition suppresses; a refused definition has none."""
    found: list[Remark] = []
    for path in paths:
        try:
            conversion = Conversion(library, path)
            texts = conversion.outputs()
        except CompileError:
            continue
        source = conversion.source
        found += [w for w in dict.fromkeys(_findings(conversion, texts)) if not _suppressed(source, w)]
    return found


def less_baseline(found: Sequence[Remark], baseline: Path | None) -> list[Remark]:
    """The findings that a baseline file does not list; each entry stands for one finding."""
    if baseline is None or not baseline.is_file():
        return list(found)
    known: list[str] = json.loads(baseline.read_text(encoding="utf-8"))
    left = []
    for remark in found:
        if remark.key in known:
            known.remove(remark.key)
        else:
            left.append(remark)
    return left


def as_baseline(found: Sequence[Remark]) -> str:
    """The text of a baseline file that lists the findings."""
    return json.dumps(sorted(remark.key for remark in found), indent=2, ensure_ascii=False) + "\n"


def as_json(found: Sequence[Remark]) -> str:
    """The findings as one JSON document."""
    return json.dumps([{**asdict(w), "remedy": w.remedy} for w in found], indent=2, ensure_ascii=False)


def _findings(conversion: Conversion, texts: dict[str, str]) -> Iterator[Remark]:
    source = conversion.source

    def warn(code: str, offset: int, message: str) -> Remark:
        return Remark(code, source.path, source.text.count("\n", 0, offset) + 1, message)

    for note in conversion.notes:
        yield warn(note.code, note.offset, note.message)
    for dropped in source.dropped:
        yield Remark("TD005", source.path, dropped.line, f"{dropped.what} is in no output")
    for statement in source.repeated:
        yield warn("TD010", statement.start, f"`{statement.name}` is defined again below, and only that one counts")
    for name, tree in conversion.trees.items():
        statement = source.statements[name]
        comment = re.search(r"#[^\n]*", source.text[statement.lead : statement.start])
        inherits = any(getattr(base, "id", "") in conversion.origin for base in tree.node.bases)
        if comment and inherits:
            yield warn("TD007", statement.lead + comment.start(), f"the comment above `{name}` is in no output")
    for path, scope in conversion.scopes.items():
        parent = conversion.parents[path]
        renamer = scope.view.renamer
        if renamer is not None and renamer.new != conversion.model:
            yield warn(
                "TD008", parent.offset, f"`{parent.model}` is read as `{renamer.new}`, not as `{conversion.model}`"
            )
        known = provided_names(conversion.library.source(path))
        for name in parent.names:
            if name not in known:
                yield warn("TD009", parent.offset, f"`{name}` is not in {conversion.library.shown(path)}")
        for old, new, line in _broken_words(scope.view, texts):
            where = f"{conversion.library.shown(path)}:{line}"
            yield warn("TD001", parent.offset, f"`{old}` becomes `{new}` ({where})")


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


def _suppressed(source: Source, remark: Remark) -> bool:
    """Whether the line of a finding, or the one above, has a comment that says so."""
    for line in (remark.line, remark.line - 1):
        if 1 <= line <= len(source.rows.starts):
            match = _IGNORE.search(source.rows.row(line))
            if match and (match[1] is None or remark.code in re.split(r"[,\s]+", match[1])):
                return True
    return False
