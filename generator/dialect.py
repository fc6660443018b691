"""What differs between the languages of definitions. Commands and tools know a dialect by this; all else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .diagnostics import Diagnostic

if TYPE_CHECKING:
    from .progress import Seen
    from .project import Project
    from .session import Session
    from .tools.carry import Line
    from .tools.family_tree import Tree
    from .write import Change


@dataclass(frozen=True)
class Outcome:
    """What a compilation comes to: the outputs by path, what was refused, and whether the outputs are all that the project has."""

    outputs: dict[str, str]
    diagnostics: tuple[Diagnostic, ...]
    complete: bool
    settled: tuple[str, ...] = ()  # outputs that are as an earlier run found them to be right: not made again
    definitions: int = 0  # that were asked for


R = TypeVar("R", bound=Outcome)


@dataclass(frozen=True)
class Trace:
    """Where the lines of one output come from."""

    text: str
    at: Callable[
        [int], tuple[Line, Sequence[tuple[str, str]]]
    ]  # of a line: origin, and the classes (place, name) in between
    read: Callable[[str], str]  # the text of the file that an origin names, as it was when it was compiled
    name: str  # of the definition


class Dialect(ABC, Generic[R]):
    """A language of definitions; paths are relative to the root of the project."""

    @abstractmethod
    def compile(
        self,
        project: Project,
        names: list[str],
        jobs: int = 1,
        seen: Seen | None = None,
        session: Session | None = None,
        anew: bool = False,
    ) -> R:
        """Compile the named definitions (none named: all); `anew`: whatever earlier runs found."""

    @abstractmethod
    def is_ours(self, text: str) -> bool:
        """Whether a file says that a compilation wrote it."""

    @abstractmethod
    def orphans(self, project: Project, made: Collection[str]) -> list[str]:
        """The files that say so and are not among those that were made."""

    @abstractmethod
    def folders(self, project: Project) -> list[Path]:
        """Where everything lies that a compilation may read, to watch it."""

    def recall(self, project: Project) -> int | None:
        """How many outputs are right, if that can be said at once."""
        return None

    def remember(self, project: Project, result: R, changes: Sequence[Change], start: int) -> None:
        """Keep, for later runs, what a run that began at `start` (nanoseconds) found."""

    def why(self, project: Project, result: R, path: str) -> list[str]:
        """Why an output is stale, as far as it is known, one reason a row."""
        return []

    @abstractmethod
    def outputs_of(self, result: R, name: str) -> dict[str, str]:
        """The outputs that the definitions of a name made, each by a name that means it alone."""

    @abstractmethod
    def trace(self, project: Project, path: str) -> Trace:
        """Where the lines of the output at `path` come from; refused if no definition makes it."""

    @abstractmethod
    def family_tree(self, project: Project, names: list[str], classes: bool) -> tuple[Tree, Sequence[Diagnostic]]:
        """The definitions, those named with all above and below them, and what keeps others from being shown."""


def dialect_of(project: Project) -> Dialect[Any]:
    """The dialect that a project's definitions are written in."""
    if project.dialect == "transformers":
        from .transformers.dialect import Transformers

        return Transformers()
    from .unibody import Unibody

    return Unibody()
