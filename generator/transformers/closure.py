"""What a class needs and in which order it is written: definitions of the parent, of the child, and of both together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..text import Text
from .renaming import View
from .source import Statement

WINS = ("_CHECKPOINT", "_EXPECTED", "_FOR_DOC", "_HIDDEN_STATES_START_POSITION")


@dataclass(eq=False)
class Definition:
    """A top-level definition as a view of its file shows it."""

    view: View
    statement: Statement

    @property
    def kind(self) -> str:
        return self.statement.kind

    @cached_property
    def name(self) -> str:
        return self.view.word(self.statement.name)

    @cached_property
    def words(self) -> set[str]:
        words = self.view.words(self.statement.words, self.statement.exempt)
        return words - {self.name} if self.kind == "class" else words

    @cached_property
    def text(self) -> Text:
        return self.view.slice(self.statement.lead, self.statement.end)


class Scope:
    """The definitions that are known together, by name: a renamed parent with the child's merged in, or the child alone."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.own: dict[str, Definition] = {}
        self.items: dict[str, list[str]] = {}
        source = view.source
        for statement in source.statements.values():
            if statement.kind in ("class", "function", "assignment", "item"):
                definition = Definition(view, statement)
                self.own[definition.name] = definition
        for name, items in source.index.items.items():
            self.items[view.word(name)] = [view.word(item) for item in items]
        self.order = {name: index for index, name in enumerate(self.own)}
        self.known = dict(self.own)
        self.pushed: dict[str, tuple[Definition, frozenset[str]]] = {}  # with what each needs
        self._closures: dict[str, frozenset[str]] = {}

    def definition(self, name: str) -> Definition:
        return self.pushed[name][0] if name in self.pushed else self.known[name]

    def __contains__(self, name: str) -> bool:
        return name in self.pushed or name in self.known

    def push(self, name: str, definition: Definition, needs: frozenset[str]) -> None:
        """Make a function of another parent known, in place of one of that name; what was known before does not need it."""
        self.pushed[name] = definition, needs

    def closure(self, name: str) -> frozenset[str]:
        """What a function or an assignment needs, itself included, by what is known without what was pushed."""
        found = self._closures.get(name)
        if found is None:
            names = {name}
            pending = [name]
            while pending:
                definition = self.known[pending.pop()]
                if definition.kind != "class":
                    new = self._direct(definition.words) - names
                    names |= new
                    pending += new
            found = self._closures[name] = frozenset(names)
        return found

    def _direct(self, words: Iterable[str]) -> set[str]:
        found = self.known.keys() & set(words)
        for name in self.items.keys() & set(words):
            found |= set(self.items[name])
        return found

    def needs(self, words: Iterable[str]) -> set[str]:
        """What is known among some words, and what the functions and assignments among them need in turn."""
        found: set[str] = set()
        for name in self._direct(words) - self.pushed.keys():
            found |= {name} if self.known[name].kind == "class" else self.closure(name)
        for name in self.pushed.keys() & set(words):
            found |= {name, *(needed for needed in self.pushed[name][1] if needed in self)}
        return found

    def class_needs(self, name: str) -> frozenset[str]:
        """What a known class needs, without what was pushed."""
        key = f"class {name}"
        found = self._closures.get(key)
        if found is None:
            names: set[str] = set()
            for word in self._direct(self.known[name].words):
                names |= {word} if self.known[word].kind == "class" else self.closure(word)
            found = self._closures[key] = frozenset(names)
        return found


def merge(parent: Scope, child: Scope, external: set[str]) -> None:
    """Make the child's definitions known to the parent: functions replace, assignments mostly do not, classes join."""
    for name, definition in child.own.items():
        if definition.kind == "function":
            parent.known[name] = definition
        elif definition.kind == "item":
            parent.known.setdefault(name, definition)
        elif definition.kind == "assignment":
            if name not in parent.known or _wins(definition):
                parent.known[name] = definition
        elif name not in parent.known and name not in external:
            parent.known[name] = definition
    for name, items in child.items.items():
        parent.items.setdefault(name, []).extend(item for item in items if item not in parent.items.get(name, []))


def _wins(assignment: Definition) -> bool:
    """Whether the child's assignment takes the place of the parent's of that name."""
    name = assignment.name
    if any(part in name for part in WINS):
        return True
    return "_DOCSTRING" in name and assignment.text.text.rpartition("=")[2].strip() != "None"


def arrange(names: set[str], parent: Scope | None, child: Scope) -> list[str]:
    """The names in the order in which they are written before the class that needs them."""
    if parent is None:
        return _before_verbatim(names, child)
    placed: list[str] = []
    done: set[str] = set()

    def place(group: Iterable[str]) -> None:
        for name in group:
            if name not in done:
                done.add(name)
                placed.append(name)

    by_parent = sorted((name for name in names if name in parent.order), key=parent.order.__getitem__)
    for name in by_parent:
        if parent.definition(name).kind != "class":
            continue
        needed = (parent.class_needs(name) & names) - done - {name}
        place(sorted((n for n in needed if n in parent.order), key=parent.order.__getitem__))
        place(sorted((n for n in needed if n not in parent.order and n in child.order), key=child.order.__getitem__))
        place([name])
    left = names - done
    place(sorted((n for n in left if n not in child.order and n in parent.order), key=parent.order.__getitem__))
    place(sorted((n for n in left if n not in child.order and n not in parent.order), reverse=True))
    place(sorted((n for n in left if n in child.order), key=child.order.__getitem__))
    return placed


def _before_verbatim(names: set[str], child: Scope) -> list[str]:
    """What came from other files, file by file, then the child's own."""
    files: dict[View, list[str]] = {}
    for name in sorted(n for n in names if n not in child.order):
        files.setdefault(child.known[name].view, []).append(name)
    found = []
    for view, group in files.items():
        position = {view.word(name): index for index, name in enumerate(view.source.statements)}
        found += sorted(group, key=lambda name: position.get(name, len(position)))
    return found + sorted((n for n in names if n in child.order), key=child.order.__getitem__)
