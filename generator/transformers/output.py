"""One output in the making: its definitions, each with a position; later ones of a name take the place of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..text import Text
from .imports import Candidate

TOP = ("logger", "_CHECKPOINT_FOR_DOC", "_CONFIG_FOR_DOC")  # always first
BOTTOM = ("__getattr__", "__all__")  # always last


@dataclass
class Output:
    """The text and position of each definition of an output, and the classes that it imports from its siblings."""

    type: str
    bodies: dict[str, Text] = field(default_factory=dict)
    positions: dict[str, float] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)  # class -> module of the sibling
    _count: int = 0

    def emit(self, name: str, text: Text, position: float | None = None) -> None:
        """Write a definition behind all others; one of that name that is there already goes."""
        if position is None:
            position = self._count
            self._count += 1
        self.bodies[name] = text
        self.positions[name] = position

    def pieces(self) -> list[Text]:
        """The text of all definitions, in order."""
        ends = {name: index for index, name in enumerate(TOP)}
        first = [name for name in ends if name in self.bodies]
        last = [name for name in BOTTOM if name in self.bodies]
        middle = sorted((n for n in self.bodies if n not in TOP and n not in BOTTOM), key=self.positions.__getitem__)
        return [self.bodies[name] for name in [*first, *middle, *last]]


def copy_definitions(torch: Output, pil: Output, kept: list[Candidate], module: str) -> bool:
    """Copy what the PIL file would import from the torch file into it, beside what stands at the same position there."""
    wanted = [
        alias.name
        for candidate in kept
        for entry in candidate.imports
        if entry.level == 1 and entry.module == module
        for alias in entry.aliases
        if alias.name in torch.bodies and alias.name not in pil.bodies
    ]
    at = {position: name for name, position in pil.positions.items()}
    for name in wanted:
        position = torch.positions[name]
        there = pil.bodies.get(at.get(position, ""))
        rows = there.text.split("\n") if there else []
        is_definition = any(row.startswith(("class ", "def ", "async def ", "@")) for row in rows)
        pil.emit(name, torch.bodies[name], position - 0.5 if is_definition else position + 0.5)
    return bool(wanted)
