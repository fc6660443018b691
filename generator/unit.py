"""What the passes hand on: one definition and all that is known of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from .discover import Source
from .graph import Binding, Graph, Internal
from .parse import Definition, Import, Module


@dataclass
class Family:
    """All members of a definition, in reading order; those not written in its file are derived copies of its parents'."""

    path: str
    prefix: str  # of its classes: `Llama`
    model_type: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    own: frozenset[str] = frozenset()  # names that the file itself defines
    exports: tuple[str, ...] | None = None
    bindings: dict[str, Binding] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(
        default_factory=dict
    )  # a parent's member and the classes that could fill its role


@dataclass(frozen=True)
class Part:
    """A definition of the output, where it lives (the path of a definition or core file) and the names that it uses."""

    space: str
    definition: Definition
    uses: tuple[str, ...]


@dataclass
class Unit:
    """One definition on its way through the passes; each fills in what the later ones read."""

    source: Source
    graph: Graph
    families: dict[str, Family]  # of the definitions compiled before, by path
    # rename
    bases: dict[str, dict[str, Internal]] = field(default_factory=dict)  # class -> base as written -> what it means
    inherited: dict[str, dict[str, Definition]] = field(
        default_factory=dict
    )  # parent -> its name -> definition in our names
    roles: dict[str, dict[str, str]] = field(default_factory=dict)  # parent -> its name -> our name
    # follow
    parts: dict[str, Part] = field(default_factory=dict)  # by name
    imports: dict[str, tuple[Import, ...]] = field(default_factory=dict)
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
