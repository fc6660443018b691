"""Which parents a definition has, what it takes from each, and the name under which each is read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from ..diagnostics import CompileError, point
from .closure import Definition
from .library import PACKAGE, Library
from .names import TYPES, common_suffix
from .source import Source

_NEIGHBOUR = re.compile(rf"(\w+)\.((?:{'|'.join(TYPES)})_\w+)\Z")

_INSTALLED = re.compile(rf"(\w+)\.(?:{'|'.join(TYPES)})_\1\Z")  # of another package: goose.modeling_goose


@dataclass
class Parent:
    """A parent file: its path below the models' folder, the model that it belongs to, the names that are imported from it."""

    path: str
    model: str
    names: list[str] = field(default_factory=list)
    offset: int = 0  # of its first import

    @property
    def type(self) -> str:
        return file_type(self.path)


def file_type(path: str) -> str:
    """The kind of output that a path names: `modeling` for `llama/modeling_llama.py`."""
    stem = path.rpartition("/")[2]
    return next((kind for kind in sorted(TYPES, key=len, reverse=True) if stem.startswith(f"{kind}_")), "modeling")


def definition_of(library: Library, parent: str) -> str | None:
    """The definition that makes a parent's file, if it is generated."""
    if parent.startswith(PACKAGE):
        return None
    folder, _, name = parent.rpartition("/")
    path = f"{folder}/modular_{name.removeprefix(f'{file_type(parent)}_')}"
    return path if (library.root / path).is_file() else None


def is_model_import(level: int, module: str) -> bool:
    """Whether a `from` import takes something from a model's file, to inherit from it."""
    if "auto.modeling_auto" in module:
        return False
    if "transformers.models." in module:
        return True
    if level == 0:
        return _INSTALLED.search(module) is not None
    if level == 2:
        return _NEIGHBOUR.match(module) is not None
    return level == 3 and module.startswith("models.")


def parents(library: Library, path: str) -> dict[str, Parent]:
    """The parents of a definition by path, in the order of their imports; refused where one is no model's file."""
    source = library.source(path)
    found: dict[str, Parent] = {}
    problems = []
    for level, module, names, offset in source.from_imports():
        if not is_model_import(level, module):
            continue
        resolved = library.resolve(path, level, module)
        if resolved is None or "/" not in resolved or not _is_file(library, resolved):
            message = f"there is no file for `{'.' * level}{module}`"
            remedy = (
                "name the model's file, as in `from ..llama.modeling_llama import …`; install its package if need be"
            )
            problems.append(point(source.rows, offset, len("from"), "UB004", message, remedy))
            continue
        parent = found.setdefault(resolved, Parent(resolved, resolved.split("/")[-2], offset=offset))
        parent.names += [name for name in names if name not in parent.names]
    if problems:
        raise CompileError(*problems)
    return found


def _is_file(library: Library, path: str) -> bool:
    """Whether a parent's file is there, or will be once its definition is converted."""
    return library.exists(path) or definition_of(library, path) is not None


def inferred_name(library: Library, classes: list[tuple[str, str]], parent: Parent, name: str) -> str:
    """The lower name in which a parent is read: what the classes that inherit from it have before the common part."""
    cased = library.names.cased(name)
    if not classes or not library.quirks.prefers_aliases:
        return name
    candidates = [_candidate(library, child, base, cased, parent.model) for child, base in classes]
    counts = Counter(candidates)
    result = candidates[0]
    if len(counts) > 1:
        top = max(counts.values())
        best = [candidate for candidate in counts if counts[candidate] == top]
        result = cased if cased in best else best[-1]
    if result != cased:
        old = result.replace(cased, library.names.cased(parent.model))
        if f"\nclass {old}" in library.source(parent.path).text:
            result = cased
    return library.names.lower(result)


def _candidate(library: Library, child: str, base: str, cased: str, model: str) -> str:
    suffix = common_suffix(child, base)
    if suffix and suffix[0].isupper():
        found = child.replace(suffix, "")
        return cased if len(found) < len(cased) and cased in child else found
    if child.replace(cased, "") == base:
        return cased + library.names.cased(model)
    return cased


def external_names(source: Source) -> set[str]:
    """What a parent imports from the other files of its model."""
    found = set()
    for level, module, names, _ in source.from_imports():
        if level == 1 and any(module.startswith(f"{kind}_") for kind in TYPES):
            found.update(names)
    return found


def definitions_of(names: list[str], known: dict[str, Definition]) -> list[str]:
    """The functions and assignments among imported names."""
    return [name for name in names if name in known and known[name].kind in ("function", "assignment")]
