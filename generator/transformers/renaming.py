"""A parent module in the child's name: every word, comment and plain string of it, by the rules of the dialect."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NamedTuple

from ..text import Text
from . import lexical
from .names import TYPES, Names
from .source import Source

PROTECTED = frozenset(
    [
        "mamba_ssm",
        "mamba-ssm",
        "use_mambapy",
        "mamba_inner_fn",
        "mamba_selective_state_update",
        "mamba_selective_scan",
        "is_mambapy_available",
        "mamba2_split_conv1d_scan_combined",
        "mamba2_selective_state_update",
        "mamba2_chunk_scan",
    ]
)
_WORD = re.compile(r"[\w-]*\Z")
_REST = re.compile(r"[\w-]*")


class Hit(NamedTuple):
    """Replace the characters `start` to `end` by `new`."""

    start: int
    end: int
    new: str


class Renamer:
    """Replaces one model's name by another's wherever a word begins with it, whatever its case and whatever follows."""

    def __init__(self, names: Names, old: str, new: str, whole_words: bool = False) -> None:
        self._whole_words = whole_words
        old, new = old.replace("-", "_"), new.replace("-", "_")
        self.old, self.new = old, new
        self.cased_new = names.cased(new)
        self.upper_new = new.upper()
        self.pairs = {old: new, old.upper(): new.upper(), names.cased(old): self.cased_new}
        self._keys = sorted({key.lower() for key in self.pairs}, key=len, reverse=True)
        self._capitals = len(self.pairs) == 2  # the cased name is the upper-case one: CLIP
        self._memo: dict[str, str] = {}
        self._protects = any(word.startswith(key) for word in PROTECTED for key in self._keys)

    def hits(self, text: str, lowered: str) -> list[Hit]:
        """Every place in a text where the old name stands."""
        found: list[Hit] = []
        for key in self._keys:
            at = lowered.find(key)
            while at >= 0:
                end = at + len(key)
                before = lowered[at - 1] if at else " "
                if not ("a" <= before <= "z" or "0" <= before <= "9") and self._ends(text, at, end):
                    found.append(Hit(at, end, self._value(text[at:end], text[end : end + 1])))
                    at = lowered.find(key, end)
                else:
                    at = lowered.find(key, at + 1)
        found.sort()
        return [hit for index, hit in enumerate(found) if not index or hit.start >= found[index - 1].end]

    def _ends(self, text: str, start: int, end: int) -> bool:
        """Whether a word may end here: always, unless whole words are wanted and a small letter goes on where one stood."""
        if not self._whole_words:
            return True
        return not text[end : end + 1].islower() or text[start:end] not in self.pairs

    def _value(self, word: str, following: str) -> str:
        if self._capitals and word.isupper():
            return self.upper_new if not re.match("[A-Za-z]", following) else self.cased_new
        return self.pairs.get(word, self.cased_new)

    def word(self, word: str) -> str:
        """An identifier in the new name."""
        found = self._memo.get(word)
        if found is None:
            found = self._memo[word] = word if word in PROTECTED else self.plain(word)
        return found

    def plain(self, text: str) -> str:
        """A text with every hit replaced, strings, comments and code alike."""
        return apply(text, self.hits(text, text.lower()))

    def prose(self, text: str) -> str:
        """A piece of code with the hits in its strings and comments replaced; names in the code stay."""
        hits = self.hits(text, text.lower())
        if not hits:
            return text
        spans = lexical.spans(text)
        return apply(text, [hit for hit in hits if self._in_prose(text, spans, hit)])

    def _in_prose(self, text: str, spans: list[lexical.Span], hit: Hit) -> bool:
        span = lexical.inside(spans, hit.start)
        return span is not None and span.kind != lexical.FORMATTED and not self.protected(text, spans, hit)

    def protected(self, text: str, spans: list[lexical.Span], hit: Hit) -> bool:
        """Whether a hit lies in a whole name, or a whole string, that keeps its name."""
        if not self._protects:
            return False
        before = _WORD.search(text, max(0, hit.start - 60), hit.start)
        after = _REST.match(text, hit.start)
        assert before and after
        span = lexical.inside(spans, hit.start)
        if span is None:
            name = re.search(r"\w*\Z", text[max(0, hit.start - 60) : hit.start])
            rest = re.match(r"\w*", text[hit.start : hit.start + 80])
            assert name and rest
            return name[0] + rest[0] in PROTECTED
        word = before[0] + after[0]
        return word in PROTECTED and text[span.start : span.end] == f'"{word}"'


def apply(text: str, hits: list[Hit]) -> str:
    """The text with the hits replaced."""
    if not hits:
        return text
    pieces = []
    position = 0
    for start, end, new in hits:
        pieces += [text[position:start], new]
        position = end
    return "".join([*pieces, text[position:]])


class View:
    """A source file as it reads under other names; offsets are those of the file as written."""

    def __init__(
        self,
        source: Source,
        renamer: Renamer | None,
        repaired: tuple[str, str] | None = None,
        package: list[str] | None = None,
    ) -> None:
        self.source = source
        self._package = package  # of an installed file: its relative imports become absolute
        self.renamer = renamer
        self._repaired = repaired
        self.hits = self._hits(renamer) if renamer else []
        self._starts = [hit.start for hit in self.hits]

    def word(self, word: str) -> str:
        return self.renamer.word(word) if self.renamer else word

    def words(self, words: frozenset[str], exempt: frozenset[str]) -> set[str]:
        """The words of a statement under the other names."""
        if self.renamer is None:
            return {*words, *exempt}
        rename = self.renamer.word
        return {*map(rename, words), *exempt}

    def text(self, start: int, end: int) -> str:
        """The characters between two offsets of the file, renamed."""
        text = self.source.text
        if not self.hits:
            return text[start:end]
        pieces = []
        for hit in self.hits[bisect_left(self._starts, start) : bisect_left(self._starts, end)]:
            pieces += [text[start : hit.start], hit.new]
            start = hit.end
        pieces.append(text[start:end])
        return "".join(pieces)

    def slice(self, start: int, end: int) -> Text:
        """The same with where each line comes from."""
        text = self.text(start, end)
        first = self.source.rows.line(start) - 1
        return Text(text, self.source.rows.origins[first : first + text.count("\n") + 1])

    def absolute(self, level: int, module: str) -> str | None:
        """What a relative import of an installed file is called from elsewhere; None for that of a sibling."""
        if self._package is None or level < 2:
            return None
        return ".".join([*self._package[: len(self._package) - level + 1], *([module] if module else [])])

    def _absolute_hits(self) -> list[Hit]:
        found = []
        for level, module, _, offset in self.source.from_imports():
            whole = self.absolute(level, module)
            if whole is not None:
                start = self.source.text.index(".", offset)
                found.append(Hit(start, start + level + len(module), whole))
        return found

    def repair_module(self, module: str) -> str:
        """The module of a relative import: `<type>_<alias>` is `<type>_<name>` again."""
        if self._repaired is None:
            return module
        alias, name = self._repaired
        kind = module.removesuffix(f"_{alias}")
        return f"{kind}_{name}" if kind in TYPES and kind != module else module

    def _hits(self, renamer: Renamer) -> list[Hit]:
        source = self.source
        text, spans = source.text, source.spans
        exempt = [(span.start, span.end) for span in spans if span.kind == lexical.FORMATTED] + source.zones
        copied = [
            (span.start, span.end)
            for span in spans
            if span.kind == lexical.COMMENT and "# Copied from" in text[span.start : span.end]
        ]
        exempt += copied
        absolute = self._absolute_hits() if self._package else []
        exempt += [(hit.start, self.source.text.find("\n", hit.end)) for hit in absolute]
        exempt.sort()
        found = []
        index = 0
        for hit in renamer.hits(text, source.lowered):
            while index < len(exempt) and exempt[index][1] <= hit.start:
                index += 1
            inside = index < len(exempt) and exempt[index][0] <= hit.start
            if not inside and not renamer.protected(text, spans, hit):
                found.append(hit)
        return sorted(found + [Hit(start, end, "") for start, end in copied] + absolute)
