"""Stage 6: what an output needs, and nothing else: its members that are used, and the core blocks that they use."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from .diagnostics import CompileError, Diagnostic, at
from .graph import Binding, Graph, Internal
from .import_statements import Import, same_imports
from .parse import Definition
from .scopes import global_names
from .substitution import substitute
from .unit import ENTRY, Family, Part, Unit

BUILTINS = frozenset(dir(builtins)) | {"__file__", "__name__", "__doc__"}


def follow(unit: Unit) -> None:
    """Collect everything reachable from the classes that the definition writes, its `__all__` and its `main`."""
    graph, family, families = unit.graph, unit.family, unit.families
    for name in family.exports or ():
        if name not in family.definitions:
            node = graph.modules[family.path]
            message = f"`__all__` names `{name}`, which this file neither defines nor inherits"
            raise CompileError(Diagnostic("UB012", message, "mend or delete the entry", node.path))
    roots = root_names(family)
    if not roots:
        message, remedy = (
            "there is no class in this definition",
            "define at least one class, or name a function in `__all__`",
        )
        raise CompileError(Diagnostic("UB016", message, remedy, family.path))
    pending = [(family.path, name) for name in roots]
    problems: list[Diagnostic] = []
    while pending:
        space, name = pending.pop(0)
        part = _part(graph, families, space, name)
        other = unit.parts.get(part.definition.name)
        if other is not None:
            if other.space != space and other.definition.text.text != part.definition.text.text:
                problems.append(_collision(part, other))
            continue
        for key in part.definition.names:
            unit.parts[key] = part
        problems += _forbidden(graph, part)
        scope = _Scope(graph, families, space)
        for use in part.definition.uses:
            target = scope.resolve(use.id)
            if scope.family is not None and use.id in scope.family.split:
                problems.append(scope.split(part, use, scope.family.split[use.id]))
            elif use.id in scope.conflicts:
                problems.append(scope.conflict(part, use))
            elif isinstance(target, Internal):
                pending.append((target.path, target.name))
            elif target is not None:
                _require(unit, scope, target, problems)
            elif use.id not in BUILTINS:
                problems.append(scope.undefined(part, use))
    for name in unit.parts.keys() & unit.imports.keys():
        part, entry = unit.parts[name], unit.imports[name][0]
        message = f"`{name}` is defined in `{part.space}` and imported by `{entry.statement}`"
        problems.append(at(part.definition.text, part.definition.node, "UB011", message, "rename one of them"))
    if problems:
        once = {(problem.code, problem.message): problem for problem in reversed(problems)}
        raise CompileError(*reversed(once.values()))


def root_names(family: Family) -> list[str]:
    """The members that an output is for."""
    classes = [n for n in family.definitions if n in family.own and family.definitions[n].kind == "class"]
    return [*classes, *(n for n in (*(family.exports or ()), ENTRY) if n in family.definitions)]


class _Scope:
    """What names mean in one family or core module."""

    def __init__(self, graph: Graph, families: dict[str, Family], space: str) -> None:
        self.family = families.get(space)
        self.space = space
        self.definitions = self.family.members if self.family else graph.modules[space].definitions
        self.bindings = self.family.bindings if self.family else graph.bindings[space]

    def resolve(self, name: str) -> Binding | None:
        if name in self.definitions:
            return Internal(self.space, name)
        binding = self.bindings.get(name)
        if binding is None and self.family is None:
            aliased = (b for b in self.bindings.values() if isinstance(b, Internal) and b.name == name)
            binding = next(aliased, None)
        return binding

    @property
    def conflicts(self) -> dict[str, list[str]]:
        return self.family.conflicts if self.family else {}

    def conflict(self, part: Part, use: ast.Name) -> Diagnostic:
        message = f"`{use.id}` would be both {' and '.join(self.conflicts[use.id])}"
        remedy = f"write `class {use.id}(…)` with the one that is meant as its base"
        return at(part.definition.text, use, "UB011", message, remedy)

    def split(self, part: Part, use: ast.Name, other: str) -> Diagnostic:
        message = f"`{use.id}` is assigned together with `{other}`, which `{self.space}` defines itself"
        return at(part.definition.text, use, "UB013", message, f"define `{use.id}` there too")

    def undefined(self, part: Part, use: ast.Name) -> Diagnostic:
        text = part.definition.text
        fillers = self.family.ambiguous.get(use.id) if self.family else None
        if fillers:
            message = f"`{use.id}` could mean {' or '.join(f'`{name}`' for name in fillers)} here"
            return at(
                text, use, "UB010", message, f"override what names `{use.id}`, or let only one class inherit from it"
            )
        message = f"nothing defines `{use.id}`"
        return at(text, use, "UB012", message, "import it, define it, or mend the spelling")


def _part(graph: Graph, families: dict[str, Family], space: str, name: str) -> Part:
    family = families.get(space)
    if family is not None:
        return Part(space, family.expanded.get(name) or family.definitions[name])
    key = (space, name)
    if key not in graph.core_definitions:
        graph.core_definitions[key] = _core_definition(graph, space, name)
    return Part(space, graph.core_definitions[key])


def _core_definition(graph: Graph, space: str, name: str) -> Definition:
    """A core definition, with what it imports under an alias called by its own name."""
    bindings = graph.bindings[space]
    aliases = {alias: b.name for alias, b in bindings.items() if isinstance(b, Internal) and b.name != alias}
    return substitute(graph.modules[space].definitions[name], aliases, None)


def _require(unit: Unit, scope: _Scope, imports: tuple[Import, ...], problems: list[Diagnostic]) -> None:
    """Add an imported name to the output's imports, and what the test or block around its import names."""
    name = imports[0].name
    known = unit.imports.get(name)
    if known is None or (known[0].guard and not imports[0].guard):
        unit.imports[name] = imports
    elif not same_imports(known, imports):
        if all(i.attribute is None and i.block is None for i in (*known, *imports)):
            unit.imports[name] = tuple(dict.fromkeys((*known, *imports)))
        else:
            message = f"`{name}` means `{known[0].statement}` and `{imports[0].statement}` in one output"
            problems.append(Diagnostic("UB011", message, "import one of them under another name", scope.space))
    around = imports[0].block or imports[0].guard
    for use in global_names(ast.parse(around)) if around and known is None else ():
        target = scope.resolve(use.id)
        if isinstance(target, tuple):
            _require(unit, scope, target, problems)


def _collision(part: Part, other: Part) -> Diagnostic:
    name = part.definition.name
    message = f"`{name}` of `{part.space}` and `{name}` of `{other.space}` land on one name"
    return at(part.definition.text, part.definition.node, "UB011", message, "rename one of them")


def _forbidden(graph: Graph, part: Part) -> Iterator[Diagnostic]:
    """Imports inside functions that would leave the output depending on us."""
    if "import " not in part.definition.text.text:
        return
    for node in ast.walk(part.definition.node):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            ours = any(module == p or module.startswith(p + ".") for p in graph.project.packages)
            if module.startswith(".") or ours:
                message = f"`{module}` is imported inside a function: the output would need it at run time"
                yield at(
                    part.definition.text, node, "UB007", message, "import it at the top of the file: it is inlined"
                )
