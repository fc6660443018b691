"""One definition becomes its outputs, as raw text: what stands in them and in which order; the formatter does the rest."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from ..diagnostics import CompileError, nearest, point
from ..text import Text, concatenate
from . import lexical
from .checks import check_class, check_dropped, check_imports, missing_names
from .classes import inherit
from .closure import Definition, Scope, arrange, merge
from .imports import Candidate, candidates, render, select
from .layout import banner
from .library import Library
from .output import Output, copy_definitions
from .parents import Parent, definitions_of, external_names, inferred_name, parents
from .renaming import View
from .shape import Note, Tree
from .soft import SOFT_TYPES, soften
from .source import Statement
from .usage import used


class Conversion:
    """The conversion of one definition; `outputs` holds the raw texts by path when it is made."""

    def __init__(self, library: Library, path: str) -> None:
        self.library = library
        self.names = library.names
        self.path = path
        self.model = path.rpartition("/")[2].removeprefix("modular_").removesuffix(".py")
        self.source = library.source(path)
        self.parents = parents(library, path)
        check_imports(library, self.source)
        self.missing = missing_names(library, self.source, self.parents)
        self.origin = {name: parent for parent in self.parents.values() for name in parent.names}
        self.child = Scope(View(self.source, None))
        self.trees: dict[str, Tree] = {}
        self.results: dict[str, Output] = {}
        self.notes: list[Note] = []
        self.scopes = self._scopes()
        self._share_functions()
        for statement in self.source.statements.values():
            if statement.kind == "class":
                self._class(statement)
        self._exports()

    def outputs(self) -> dict[str, str]:
        """The raw text of each output, by its path below the models' folder."""
        found = {}
        for kind, output in self.results.items():
            kept = self.finished(output)
            path = output_path(self.path, kind)
            pieces = [piece.text for piece in output.pieces()]
            body = "\n".join(pieces)
            self._check(output, kept, pieces)
            found[path] = f"{banner(self.path, self.library.in_tree)}{self.source.index.header}{render(kept)}{body}\n"
        return found

    def _check(self, output: Output, kept: list[Candidate], pieces: list[str]) -> None:
        """Refuse an output that nothing but `__all__` asks for, or that lacks what the definition itself dropped."""
        if output.bodies.keys() == {"__all__"}:
            statement = self.source.statements["__all__"]
            entries = pieces[0].partition("[")[2].rstrip("]")
            message = f"`__all__` names {entries}, for which there is no class: {output_path(self.path, output.type)} would be empty"
            remedy = "define the class, or take the entry out"
            raise CompileError(point(self.source.rows, statement.start, len("__all__"), "UB005", message, remedy))
        if self.missing:
            lost = sorted(used(set(self.missing), pieces) - output.bodies.keys())
            if lost:
                raise CompileError(*(self.missing[name] for name in lost))
        if self.source.dropped_names:
            words = used(self.source.dropped_names, pieces)
            present = {alias.local for c in kept for entry in c.imports for alias in entry.aliases}
            check_dropped(self.source, words, present | self.child.own.keys())

    def finished(self, output: Output) -> list[Candidate]:
        """The imports of an output, once nothing more comes into it."""
        kept = self._imports(output)
        torch = self.results.get("image_processing")
        if output.type == "image_processing_pil" and torch is not None:
            while copy_definitions(torch, output, kept, f"image_processing_{self.model}"):
                kept = self._imports(output)
        return soften(kept) if output.type in SOFT_TYPES else kept

    def _bases(self, statement: Statement) -> tuple[Tree, str | None]:
        """The tree of a class, and the base that comes from a parent."""
        tree = self.trees.get(statement.name)
        if tree is None:
            tree = self.trees[statement.name] = Tree(self.child.view, statement)
            check_class(self.source, tree, self.origin)
        bases = [base.id for base in tree.node.bases if isinstance(base, ast.Name) and base.id in self.origin]
        return tree, bases[0] if bases else None

    def inheriting(self) -> Iterator[tuple[str, str]]:
        """The classes of the definition that inherit from a parent's, each with that base."""
        for statement in self.source.statements.values():
            base = self._bases(statement)[1] if statement.kind == "class" else None
            if base is not None:
                yield statement.name, base

    def _scopes(self) -> dict[str, Scope]:
        """The renamed parents, each with the child's definitions merged in."""
        inheriting: dict[str, list[tuple[str, str]]] = {}
        for name, base in self.inheriting():
            inheriting.setdefault(self.origin[base].path, []).append((name, base))
        found = {}
        self.external: dict[str, set[str]] = {}
        for path, parent in self.parents.items():
            new = inferred_name(self.library, inheriting.get(path, []), parent, self.model)
            view = self.library.view(path, parent.model, new, self.model)
            scope = found[path] = Scope(view)
            names = {view.word(name) for name in external_names(scope.view.source)}
            self.external.setdefault(parent.type, set()).update(names)
        for path, scope in found.items():
            merge(scope, self.child, self.external[self.parents[path].type])
        return found

    def _share_functions(self) -> None:
        """Functions that the child imports become its own, and known to all parents."""
        shared: dict[str, tuple[Definition, frozenset[str]]] = {}
        for path, parent in self.parents.items():
            scope = self.scopes[path]
            for name in definitions_of(parent.names, scope.known):
                if name in self.child.own:
                    continue
                for needed in sorted(scope.closure(name)):
                    definition = scope.known[needed]
                    if needed not in self.child.own:
                        self.child.known[needed] = definition
                    if definition.kind == "function":
                        shared[needed] = definition, scope.closure(needed)
        for scope in self.scopes.values():
            for name, (definition, needs) in shared.items():
                if definition.view is not scope.view:
                    scope.push(name, definition, needs)

    def _output(self, kind: str) -> Output:
        return self.results.setdefault(kind, Output(kind))

    def _class(self, statement: Statement) -> None:
        kind = self.names.type_of(statement.name, self.model)
        output = self._output(kind)
        tree, base = self._bases(statement)
        if base is None:
            definition = self.child.own[statement.name]
            needed = self._siblings(self.child.needs(definition.words) - {statement.name}, output)
            needed -= {n for n in needed if n in self.child.own and self.child.own[n].kind == "class"}
            self._write(needed - output.bodies.keys(), None, output)
            output.emit(statement.name, definition.text)
            return
        parent = self.origin[base]
        scope = self.scopes[parent.path]
        renamed = scope.view.word(base)
        original = scope.own.get(renamed)
        if original is None or original.kind != "class":
            raise self._no_class(tree, base, parent)
        shape = inherit(self.library, tree, base, Tree(scope.view, original.statement))
        self.notes += shape.notes
        text = shape.render()
        words = lexical.identifiers(text.text, lexical.spans(text.text), 0, len(text.text)) - {statement.name}
        external = self.external[parent.type] if parent.type == kind else self.external.get(kind, set())
        needed = scope.needs(words) - (external - scope.pushed.keys()) - output.created.keys()
        needed = self._siblings(needed, output)
        needed = {n for n in needed if not (n in self.child.own and self.child.own[n].kind == "class")}
        self._write(self._follow(scope, needed, output), scope, output)
        output.emit(statement.name, text)

    def _no_class(self, tree: Tree, base: str, parent: Parent) -> CompileError:
        offset = self.source.text.index(base, tree.base)
        message = f"`{base}` is not a class of {self.library.shown(parent.path)}"
        statements = self.scopes[parent.path].view.source.statements.values()
        classes = [statement.name for statement in statements if statement.kind == "class"]
        remedy = nearest(base, classes) or "inherit from a class that the file defines"
        return CompileError(point(self.source.rows, offset, len(base), "UB005", message, remedy))

    def _follow(self, scope: Scope, needed: set[str], output: Output) -> set[str]:
        """The needed definitions with what their classes need, as far as it is not written yet."""
        found = needed - output.bodies.keys()
        pending = [name for name in found if scope.definition(name).kind == "class"]
        while pending:
            level: list[str] = []
            for name in pending:
                new = scope.class_needs(name) - found - output.bodies.keys() - {name}
                found |= new
                level += [n for n in new if scope.definition(n).kind == "class"]
            pending = level
        return found

    def _siblings(self, needed: set[str], output: Output) -> set[str]:
        """What is needed, less the classes that another output holds: those are imported from it."""
        left = set()
        for name in needed:
            known = self.child.own.get(name) or next(
                (s.definition(name) for s in self.scopes.values() if name in s), None
            )
            kind = self.names.type_of(name, self.model) if known and known.kind == "class" else output.type
            if kind == output.type:
                left.add(name)
            else:
                output.created[name] = f"{kind}_{self.model}"
        return left

    def _write(self, names: Iterable[str], scope: Scope | None, output: Output) -> None:
        home = scope if scope is not None else self.child
        for name in arrange(set(names), scope, self.child):
            output.emit(name, home.definition(name).text)

    def _imports(self, output: Output) -> list[Candidate]:
        views = [(scope.view, self.parents[path]) for path, scope in self.scopes.items()]
        pieces = [piece.text for piece in output.pieces()]
        return select(candidates(self.source, output.created, views), pieces, set(output.bodies))

    def _exports(self) -> None:
        statement = self.source.statements.get("__all__")
        special = self.source.statements.get("__getattr__")
        if special is not None:
            text = self.child.view.text(special.start, special.end)
            for kind in self._getattr_kinds(text):
                self._output(kind).emit("__getattr__", self._rebuilt(special, one_line_call(text)))
        if statement is None:
            return
        code = self.child.view.text(statement.start, statement.end)
        node = ast.parse(code).body[0]
        assert isinstance(node, ast.Assign)
        groups: dict[str, list[str]] = {}
        for entry in getattr(node.value, "elts", []):
            if isinstance(entry, ast.Constant) and isinstance(entry.value, str):
                segment = ast.get_source_segment(code, entry) or repr(entry.value)
                groups.setdefault(self.names.type_of(entry.value, self.model), []).append(segment)
        for kind, group in groups.items():
            self._output(kind).emit("__all__", self._rebuilt(statement, f"__all__ = [{', '.join(group)}]"))

    def _rebuilt(self, statement: Statement, text: str) -> Text:
        """A statement of the definition in another form, below the comments that stand above it."""
        lead = self.child.view.slice(statement.lead, statement.start)
        origins = self.child.view.slice(statement.start, statement.start).origins
        return concatenate([lead, Text(text, origins * (text.count("\n") + 1))])

    def _getattr_kinds(self, text: str) -> list[str]:
        """The outputs that a module-level `__getattr__` goes to: those of the classes that its call names."""
        keys = [
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        kinds = {self.names.type_of(key, self.model) for key in keys if key in self.source.statements}
        return sorted(kinds) or ["processing"]


def output_path(path: str, kind: str) -> str:
    """The path of the output of a kind that the definition at `path` makes."""
    return path.replace("modular_", f"{kind}_")


def one_line_call(text: str) -> str:
    """An assignment of a call, without the comma behind the last argument."""
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    call = node.value
    arguments = [ast.get_source_segment(text, argument) or "" for argument in call.args]
    arguments += [f"{k.arg}={ast.get_source_segment(text, k.value)}" for k in call.keywords]
    return f"{ast.unparse(node.targets[0])} = {ast.get_source_segment(text, call.func)}({', '.join(arguments)})"


def convert(library: Library, path: str) -> dict[str, str]:
    """The raw texts of the outputs of the definition at `path`, by path."""
    return Conversion(library, path).outputs()
