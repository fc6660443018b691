"""What the passes hand on: one definition and all that is known of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .discover import Source
from .graph import Binding, Graph, Internal
from .import_statements import Import
from .parse import Definition, Module


@dataclass
class Family:
    """All members of a definition, in reading order; those not written in its file are derived copies of its parents'."""

    path: str
    prefix: str  # of its classes: `Llama`
    model_type: str = ""
    definitions: dict[str, Definition] = field(default_factory=dict)
    expanded: dict[str, Definition] = field(
        default_factory=dict
    )  # what kernel tables make of members, and add to them
    own: frozenset[str] = frozenset()  # names that the file itself defines
    exports: tuple[str, ...] | None = None
    bindings: dict[str, Binding] = field(default_factory=dict)
    subfamilies: tuple[str, ...] = ()  # the class prefixes that `__families__` declares
    types: dict[str, str] = field(default_factory=dict)  # sub-family -> its own model type
    origins: dict[str, Internal] = field(default_factory=dict)  # a derived copy -> what it is a copy of
    kept: dict[str, frozenset[str]] = field(default_factory=dict)  # a class -> members that merging added to it
    ambiguous: dict[str, list[str]] = field(
        default_factory=dict
    )  # a parent's member -> classes that could fill its role
    split: dict[str, str] = field(default_factory=dict)  # a name assigned together with one that this file overrides
    conflicts: dict[str, list[str]] = field(
        default_factory=dict
    )  # a name -> the parents whose different members land on it

    @property
    def members(self) -> dict[str, Definition]:
        """The definitions as the output has them, kernel tables expanded; children inherit those as written."""
        return {**self.definitions, **self.expanded}

    def subfamily(self, name: str) -> str:
        """The sub-family that a member belongs to, by the longest class prefix or model type; "" for none."""
        marks = {prefix: prefix for prefix in self.subfamilies}
        for prefix, own in self.types.items():
            if own != self.model_type:
                marks |= {f"{own}_": prefix, f"{own.upper()}_": prefix}
        return marks.get(max((mark for mark in marks if name.startswith(mark)), key=len, default=""), "")


@dataclass(frozen=True)
class Part:
    """A definition of the output, and where it lives: the path of a definition or core file."""

    space: str
    definition: Definition


class Branch(NamedTuple):
    """A parent, and the sub-family of ours ("" where there is none) that it is a parent of."""

    parent: str
    subfamily: str


@dataclass
class Unit:
    """One definition on its way through the passes; each fills in what the later ones read."""

    source: Source
    graph: Graph
    families: dict[str, Family]  # of the definitions compiled before, by path
    # rename
    bases: dict[str, dict[str, Internal]] = field(default_factory=dict)  # class -> base as written -> what it means
    roles: dict[Branch, dict[str, str]] = field(default_factory=dict)  # a parent's name -> our name
    inherited: dict[Branch, dict[str, Definition]] = field(
        default_factory=dict
    )  # a parent's name -> its member in our names
    # follow
    parts: dict[str, Part] = field(default_factory=dict)  # by name
    imports: dict[str, tuple[Import, ...]] = field(default_factory=dict)
    # roles
    filled: dict[str, list[Definition]] = field(default_factory=dict)  # class -> the roles of core that it has filled
    # order, imports, render
    ordered: list[Part] = field(default_factory=list)
    import_block: str = ""
    text: str = ""

    @property
    def module(self) -> Module:
        return self.graph.modules[self.source.path]

    @property
    def family(self) -> Family:
        return self.families[self.source.path]

    @property
    def exports(self) -> list[str]:
        """The names that the output's `__all__` lists."""
        names = self.family.exports
        if names is None:
            own = self.family.own
            names = tuple(name for name, part in self.parts.items() if name in own and part.definition.kind == "class")
        return [name for name in names if name != ENTRY]


ENTRY = "main"  # a function of this name makes the output a program
