from collections.abc import Sequence

from ..diagnostics import Diagnostic
from ..tools.family_tree import Tree
from .library import Library


def read_tree(library: Library, names: list[str], classes: bool) -> tuple[Tree, Sequence[Diagnostic]]:
    raise NotImplementedError
