"""A definition as the interpreter sees it: its own members, its family, and which member has which role."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class RefusedError(Exception):
    """The definition has no meaning."""


class Library:
    """The definitions of a project, each parsed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.definitions: dict[Path, Definition] = {}

    def parse(self, file: Path) -> Definition:
        file = file.resolve()
        if file not in self.definitions:
            self.definitions[file] = Definition(self, file)
        return self.definitions[file]

    def imported(self, file: Path, node: ast.ImportFrom) -> Definition | None:
        """The definition that a statement of `file` imports from, found by path; None for any other module."""
        parts = (node.module or "").split(".")
        if not parts[-1].startswith("modular_"):
            return None
        folders = [file.parents[node.level - 1]] if node.level else [self.root, *map(Path, sys.path)]
        return self.parse(next(f for folder in folders if (f := Path(folder, *parts).with_suffix(".py")).is_file()))


class Definition:
    """A parsed file: its own members, what it imports from other definitions, the parents of its classes."""

    def __init__(self, library: Library, file: Path) -> None:
        self.file = file
        self.own: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[Definition, str]] = {}  # from other definitions
        self.executed: list[ast.stmt] = []  # the other imports
        self.removers: set[str] = set()  # names of `removed`
        self.families: tuple[str, ...] = ()
        self._words: dict[ast.stmt, tuple[set[str], set[str], bool]] = {}
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            other = library.imported(file, node) if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.ImportFrom) and other is not None:
                self.imports |= {a.asname or a.name: (other, a.name) for a in node.names}
            elif isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try)):
                self.executed.append(node)
                self.removers |= {a.asname or a.name for a in getattr(node, "names", ()) if a.name == "removed"}
            else:
                self.own |= dict.fromkeys(bound_names(node), node)
        self.own.pop("__all__", None)
        declared = self.own.pop("__families__", None)
        if isinstance(declared, ast.Assign):
            self.families = ast.literal_eval(declared.value)
        self.classes = {name: node for name, node in self.own.items() if isinstance(node, ast.ClassDef)}
        self.bases = {name: [self._parent_class(b) for b in node.bases] for name, node in self.classes.items()}
        found = [(base[0], self.part(name)) for name, bases in self.bases.items() for base in bases if base]
        self.branches = list(dict.fromkeys(found))  # each parent, with the sub-family that it is a parent of
        self.parents = {parent for parent, _ in self.branches}

    def _parent_class(self, base: ast.expr) -> tuple[Definition, str] | None:
        """The definition and name of a base that is imported from a definition."""
        return self.imports.get(base.id) if isinstance(base, ast.Name) and base.id not in self.own else None

    def part(self, name: str) -> str:
        """The sub-family of a member, "" for none: of a class by the longest prefix, of others by the longest model type."""
        if name in self.classes:
            return max((prefix for prefix in self.families if name.startswith(prefix)), key=len, default="")
        types = {self.model_type(part): part for part in self.families}
        types.pop(self.model_type(), None)
        found = [t for t in types if name.startswith((f"{t}_", f"{t.upper()}_"))]
        return types[max(found, key=len)] if found else ""

    @functools.cached_property
    def prefix(self) -> str:
        """What its configurations' names begin with, else what all class names do, up to the end of a word."""
        configurations = [n.removesuffix("Config") for n in self.classes if n.endswith("Config") and n != "Config"]
        if len(configurations) == 1:
            return configurations[0]
        names = configurations or list(self.classes)
        common = os.path.commonprefix(names)
        while common and any(name[len(common) :][:1].islower() for name in names):
            common = common[:-1]
        return "" if common in names and not configurations else common

    @functools.cache  # noqa: B019 (a definition lives as long as what is cached)
    def model_type(self, part: str = "") -> str:
        """The literal `model_type` of a class of the sub-family, else of one outside, else what the file's name says."""
        for name, node in self.classes.items():
            for statement in node.body if self.part(name) == part else ():
                value = getattr(statement, "value", None)
                if bound_names(statement) == ["model_type"] and isinstance(value, ast.Constant):
                    return str(value.value)
        return self.model_type() if part else self.file.stem.removeprefix("modular_")

    @functools.cached_property
    def members(self) -> dict[str, list[tuple[Definition, str, str]]]:
        """The family: for a derived copy the parents that it may come from, with its name there, and our sub-family."""
        found: dict[str, list[tuple[Definition, str, str]]] = {name: [] for name in self.own}
        for parent, part in self.branches:
            for name in parent.members:
                with contextlib.suppress(RefusedError):
                    role = self.role(part, parent, name)
                    if role not in self.own:
                        found.setdefault(role, []).append((parent, name, part))
        return found

    @functools.cache  # noqa: B019
    def role(self, part: str, parent: Definition, name: str) -> str:
        """Our member in the role of the parent's, as code of one of our sub-families sees it.

        Where neither it nor what belongs to no sub-family has that parent, the role is the same for those that have it.
        """
        having = {p for other, p in self.branches if other is parent}
        if not {part, ""} & having:
            seen = sorted({self.role(p, parent, name) for p in having})
            if len(seen) > 1:
                raise RefusedError(f"ambiguous role: {name} could be {seen}")
            return seen[0]
        part = part if part in having else ""
        every = [c for c, bases in self.bases.items() if (parent, name) in bases]
        near = [c for c in every if self.part(c) == part]
        filling = near or [c for c in every if not part or not self.part(c)]
        if len(filling) > 1:
            raise RefusedError(f"ambiguous role: {name} could be {filling}")
        if filling:
            return filling[0]
        old, new = parent.model_type(), self.model_type(part)
        prefixes = {parent.prefix: part or self.prefix, f"{old}_": f"{new}_", f"{old.upper()}_": f"{new.upper()}_"}
        for before, after in prefixes.items():
            if before and name.startswith(before):
                return after + name.removeprefix(before)
        return name

    @functools.cache  # noqa: B019
    def looked_up(self, name: str) -> tuple[tuple[str, ...], bool]:
        """The names that executing a member's statement looks up, and whether it may call something."""
        node = self.own[name]
        return tuple(dict.fromkeys(executed_names(node))), any(isinstance(n, ast.Call) for n in ast.walk(node))

    @functools.cache  # noqa: B019
    def mentioned(self, name: str) -> tuple[str, ...]:
        """All names in a member's statement."""
        return tuple(dict.fromkeys(n.id for n in ast.walk(self.own[name]) if isinstance(n, ast.Name)))

    def words(self, node: ast.stmt) -> tuple[set[str], set[str], bool]:
        """The attributes and strings in a statement, and whether it declares a name global."""
        if node not in self._words:
            inside = list(ast.walk(node))
            attributes = {n.attr for n in inside if isinstance(n, ast.Attribute)}
            strings = {n.value for n in inside if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            self._words[node] = attributes, strings, any(isinstance(n, ast.Global) for n in inside)
        return self._words[node]


def bound_names(node: ast.AST) -> list[str]:
    """The names that a statement binds where it stands."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [node.name]
    targets = getattr(node, "targets", None) or [t for t in [getattr(node, "target", None)] if t]
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and n.ctx != ast.Load()]


def executed_names(node: ast.AST) -> Iterator[str]:
    """The names that executing a statement looks up: not those of the bodies of functions, nor of annotations."""
    if isinstance(node, ast.Name):
        yield node.id
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        inside = [*getattr(node, "decorator_list", ()), *node.args.defaults, *filter(None, node.args.kw_defaults)]
    else:
        inside = [c for c in ast.iter_child_nodes(node) if c is not getattr(node, "annotation", None)]
    for child in inside:
        yield from executed_names(child)
