"""Stage 3: which module each import means, and the order in which definitions can be compiled (parents first)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .ancestry import Ancestry, circle
from .diagnostics import CompileError, Diagnostic, nearest
from .discover import PREFIX
from .import_statements import Import
from .parse import Definition, Module, parse_module, read_source
from .project import Project


@dataclass(frozen=True)
class Internal:
    """A name that another module of ours defines."""

    path: str
    name: str


Binding = Internal | tuple[Import, ...]  # the second: imported from a third party or the standard library


@dataclass
class Graph(Ancestry):
    """All modules that the asked-for definitions need; `bindings[path][name]` says what an imported name means."""

    project: Project
    modules: dict[str, Module] = field(default_factory=dict)
    bindings: dict[str, dict[str, Binding]] = field(default_factory=dict)
    core: set[str] = field(default_factory=set)
    core_definitions: dict[tuple[str, str], Definition] = field(default_factory=dict)  # made once for all outputs
    _files: dict[Path, str] = field(default_factory=dict)

    def add(self, file: Path) -> str:
        """Read the definition in `file` and all that it imports; returns its path. Errors are kept under the path."""
        return self._load(file, [])

    def parents(self, path: str) -> list[str]:
        """The definitions that a definition imports from, in the order of its imports."""
        found = [b.path for b in self.bindings.get(path, {}).values() if isinstance(b, Internal)]
        return [p for p in dict.fromkeys(found) if p not in self.core]

    def _load(self, file: Path, trail: list[str]) -> str:
        real = file.resolve()
        path = self._files.get(real)
        if path is not None and path not in trail:
            return path
        path = self._files.setdefault(real, self.project.display(file))
        if path in trail:
            raise circle(trail, path, "move what both need into a third definition or into core")
        if real.is_relative_to(self.project.core.resolve()):
            self.core.add(path)
        try:
            module = self.modules[path] = parse_module(read_source(file, path), path)
            self.bindings[path] = {}
            problems = self._check(module)
            for name, imports in module.imports.items():
                try:
                    self.bindings[path][name] = self._bind(file, imports, [*trail, path])
                except CompileError as error:
                    problems += error.diagnostics
            if problems:
                raise CompileError(*problems)
        except CompileError as error:
            self.errors.setdefault(path, []).extend(error.diagnostics)
        if path not in self.core:
            self.order.append(path)
        return path

    def _bind(self, file: Path, imports: tuple[Import, ...], trail: list[str]) -> Binding:
        entry = imports[-1]
        target = self._find(file, entry)
        if target is None:
            return imports
        if entry.attribute is None:
            remedy = f"write `from {entry.module} import …` and name what the definition uses"
            raise CompileError(placed(entry, "UB007", f"`import {entry.module}` of an inlined module", remedy))
        if not target.is_file():
            remedy = "check the spelling; modules are found by path, nothing is imported"
            message = f"there is no module `{entry.module}` ({self.project.display(target)})"
            raise CompileError(placed(entry, "UB004", message, remedy))
        # Core modules may name each other in any order, definitions may not.
        inside_core = target.resolve().is_relative_to(self.project.core.resolve())
        path = self._files.get(target.resolve()) if inside_core else None
        path = path or self._load(target, [] if inside_core else trail)
        return self._internal(entry, path)

    def _internal(self, entry: Import, path: str) -> Binding:
        """What `name` of another module of ours means: what it defines, or what it imports itself.

        Whether a definition's family has a member of that name is known only once the family is built.
        """
        name = str(entry.attribute)
        other = self.modules.get(path)
        if other is None or path in self.errors or name in other.definitions:
            return Internal(path, name)
        onward = self.bindings[path].get(name)
        if onward is None and path in self.core:
            raise CompileError(unknown_name(entry, path, other.definitions))
        return onward or Internal(path, name)

    def _find(self, file: Path, entry: Import) -> Path | None:
        """The file that an import means when it is one of ours."""
        dots = len(entry.module) - len(entry.module.lstrip("."))
        if dots:
            base = file.parent
            for _ in range(dots - 1):
                base = base.parent
            target = base.joinpath(*entry.module[dots:].split("."))
            inside = target.resolve().is_relative_to(self.project.core.resolve())
            if str(entry.attribute).startswith(PREFIX) and not entry.module.strip("."):
                remedy = f"write `from {entry.module}{entry.attribute} import …` and name what the definition uses"
                raise CompileError(
                    placed(entry, "UB007", f"`{entry.attribute}` is a definition, no name in one", remedy)
                )
            if not target.name.startswith(PREFIX) and not inside:
                remedy = "import a definition (`.modular_…`), a core block, or an installed package by its full name"
                message = f"`{entry.module}` is neither a definition nor a core block: the output could not import it"
                raise CompileError(placed(entry, "UB007", message, remedy))
            return target.with_suffix(".py")
        for package, folder in self.project.packages.items():
            if entry.module == package:
                return folder / "__init__.py"
            if entry.module.startswith(package + "."):
                return folder.joinpath(*entry.module[len(package) + 1 :].split(".")).with_suffix(".py")
        return None

    def _check(self, module: Module) -> list[Diagnostic]:
        """A name is either defined or imported, not both."""
        return [
            placed(entries[0], "UB009", f"`{name}` is both imported and defined in this file", "rename one of the two")
            for name, entries in module.imports.items()
            if name in module.definitions
        ]


def unknown_name(entry: Import, path: str, known: Iterable[str]) -> Diagnostic:
    remedy = f"{nearest(str(entry.attribute), known)} it has {', '.join(sorted(known))}".lstrip()
    return placed(entry, "UB005", f"`{path}` does not define `{entry.attribute}`", remedy)


def placed(entry: Import, code: str, message: str, remedy: str) -> Diagnostic:
    assert entry.place is not None
    return replace(entry.place, code=code, message=message, remedy=remedy)
