"""A reference interpreter: what a definition means, as live Python objects.

Nothing is merged or spliced here. A parent's module is executed again for each child, and Python itself gives the rest
its meaning: class C of a definition has the parent's class, executed again for C, as its real base (a *layer*), so that
`super()`, the C3 order, properties and decorators are Python's own.

Roles need no renaming of identifiers. Each execution of a definition on behalf of a child has a namespace of its own (a
`View`), which binds every name of the definition's family to the child's member in its role, level by level up to the
definition that is interpreted. Only literals and attributes are rewritten. Namespaces are filled when everything is
made; before that, a statement gets the names that executing it looks up.
"""

from __future__ import annotations

import __future__

import ast
import contextlib
import copy
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meaning.definition import FUNCTIONS, Definition, Library, Refused, bound_names, executed_names

COUNT = itertools.count()


def interpret(root: Path, path: str | Path, library: Library | None = None) -> dict[str, Any]:
    """The namespace of a definition, with its whole family; raises Refused where the language gives it no meaning."""
    before = set(sys.modules)
    try:
        return World((library or Library(root)).parse(Path(root, path))).fill()
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("meaning of "):
                del sys.modules[name]


class World:
    """Everything that one definition means: the objects of its family, and the views that made them."""

    def __init__(self, definition: Definition) -> None:
        self.objects: dict[str, Any] = {}
        self.making: set[str] = set()
        self.holders: dict[str, list[tuple[dict[str, Any], str]]] = {}  # who binds a member, and by what name
        self.embedded: dict[Definition, World] = {}
        self.dataclasses: dict[type, Any] = {}  # every class that was made, with its dataclass decorator
        self.layers: dict[type, list[type]] = {}  # and the classes that were made for it alone
        self.views: list[View] = []
        self.root = View(self, definition, None, "", {})

    def object(self, name: str) -> Any:
        """The family's member of that name; NameError while it is being made."""
        if name not in self.objects:
            if name in self.making:
                raise NameError(name)
            self.making.add(name)
            try:
                (view, own), *others = self.root.sources(name)
                if any(other.meaning(theirs) != view.meaning(own) for other, theirs in others):
                    raise Refused(f"different members land on {name}")
                self.objects[name] = view.make(own)
            finally:
                self.making.discard(name)
        return self.objects[name]

    def fill(self) -> dict[str, Any]:
        """The namespace of the definition, when every view's names are bound."""
        for name in self.root.definition.own:
            self.object(name)
        for view in self.views:  # grows on the way
            for name in (*view.definition.members, *view.definition.imports):
                view.bind(name)
        for world in list(self.embedded.values()):
            world.fill()
        return self.root.namespace

    def assign(self, name: str, value: Any) -> None:
        """What `global name` and an assignment do: all names of the member are bound anew."""
        self.objects[name] = value
        for namespace, local in self.holders[name]:
            namespace[local] = value


class View:
    """A definition executed for a child (None: for itself); `part` is the sub-family whose classes are made here."""

    def __init__(self, world: World, definition: Definition, child: View | None, part: str, parts: dict) -> None:
        self.world, self.definition, self.child, self.part, self.parts = world, definition, child, part, parts
        self.parts[part] = self
        self.parents: dict[Definition, View] = {}
        self.made: dict[int, dict[str, Any]] = {}
        self.prepared: set[str] = set()
        module = types.ModuleType(f"meaning of {definition.file.stem} {next(COUNT)}")
        sys.modules[module.__name__] = module  # dataclasses look there to understand annotations
        self.namespace = module.__dict__
        self.namespace["__family__"] = Assigner(self)
        world.views.append(self)
        for statement in definition.executed:
            self.execute(statement, self.namespace)

    def sibling(self, part: str) -> View:
        """The same definition for the same child, for another sub-family."""
        return self.parts.get(part) or View(self.world, self.definition, self.child, part, self.parts)

    def parent(self, definition: Definition) -> View:
        if definition not in self.parents:
            self.parents[definition] = View(self.world, definition, self, "", {})
        return self.parents[definition]

    def sources(self, name: str) -> list[tuple[View, str]]:
        """The views that can make a member of this family, and its name there: one, unless parents collide."""
        if name in self.definition.own:
            return [(self.sibling(self.definition.part(name)), name)]
        found = [(self.sibling(part).parent(parent), n) for parent, n, part in self.definition.members.get(name, ())]
        if not found:
            raise Refused(f"{self.definition.file.name} has no {name}")
        return [source for view, theirs in found for source in view.sources(theirs)]

    def final(self, name: str) -> str:
        """What a member of this family is called in the definition that is interpreted."""
        child = self.child
        return name if child is None else child.final(child.definition.role(child.part, self.definition, name))

    def literal(self, text: str) -> str:
        """What a whole string says when it is inherited."""
        if self.child is None:
            return text
        child, part = self.child.definition, self.child.part
        if text == self.definition.model_type():
            text = child.model_type(part)
        elif text in self.definition.members:
            with contextlib.suppress(Refused):
                text = child.role(part, self.definition, text)
        return self.child.literal(text)

    def attribute(self, name: str) -> str:
        if self.child is None:
            return name
        own_type = name == self.definition.model_type()
        return self.child.attribute(self.child.definition.model_type(self.child.part) if own_type else name)

    def bind(self, name: str) -> None:
        """Give a name its meaning, if it has one and that is not being made right now."""
        definition, world = self.definition, self.world
        if name in self.namespace:
            return
        with contextlib.suppress(Refused, NameError):
            if name in definition.imports:
                parent, theirs = definition.imports[name]
                if parent not in definition.parents:
                    if parent not in world.embedded:
                        world.embedded[parent] = World(parent)
                    self.namespace[name] = world.embedded[parent].object(theirs)
                    return
                final = self.final(definition.role(self.part, parent, theirs))
            elif name in definition.members:
                final = self.final(name)
            else:
                return
            self.namespace[name] = world.object(final)
            world.holders.setdefault(final, []).append((self.namespace, name))

    def prepare(self, names: Iterable[str]) -> None:
        """Bind the names that executing a statement looks up, and those that what it calls may look up."""
        for name in names:
            self.bind(name)
            if name not in self.prepared and name in self.definition.members:
                self.prepared.add(name)
                with contextlib.suppress(Refused):
                    for view, own in self.world.root.sources(self.final(name)):
                        body = ast.walk(view.definition.own[own])
                        view.prepare([node.id for node in body if isinstance(node, ast.Name)])

    def execute(self, statement: ast.stmt, target: dict[str, Any]) -> None:
        tree = ast.fix_missing_locations(ast.Module([statement], []))
        flags = __future__.annotations.compiler_flag
        exec(compile(tree, str(self.definition.file), "exec", flags, dont_inherit=True), self.namespace, target)

    def make(self, name: str) -> Any:
        """The member of that name, which the definition itself defines; a statement is executed once."""
        original = self.definition.own[name]
        if id(original) not in self.made:
            if isinstance(original, ast.ClassDef):
                self.made[id(original)] = {name: self.make_class(name, self.final(name), set(), False)}
            else:
                self.prepare(executed_names(original))
                node, made = Rewriter(self).visit(copy.deepcopy(original)), {}
                if isinstance(node, FUNCTIONS):
                    node.name = self.final(name)
                self.execute(node, made)
                self.made[id(original)] = {name: made[node.name]} if isinstance(node, FUNCTIONS) else made
        return self.made[id(original)][name]

    def make_class(self, name: str, label: str, removed: set[str], finished: bool) -> type:
        """The class, made anew, called `label`, without `removed` fields; `finished`: an heir calls post_init itself."""
        definition, world = self.definition, self.world
        node = Rewriter(self).visit(copy.deepcopy(definition.classes[name]))
        removals = [s for s in node.body if getattr(getattr(s, "value", None), "id", None) in definition.removers]
        node.body = [s for s in node.body if s not in removals]
        for init in (s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"):
            lines = [ast.unparse(statement) for statement in init.body]
            init.body = [s for s, t in zip(init.body, lines, strict=True) if t != "self.post_init()" or not finished]
            init.body = init.body or [ast.Pass()]
            above = [number for number, line in enumerate(lines) if line.startswith("super().__init__(")]
            finished = finished or bool(above) and "self.post_init()" in lines[above[0] :]
        layers: dict[str, type] = {}
        hidden = removed.union(*map(bound_names, removals))
        for index, source in enumerate(definition.bases[name]):
            if source is not None:
                view, own = self.parent(source[0]).sources(source[1])[0]
                layer = view.make_class(own, label, hidden, finished)
                layers[node.bases[index].id] = layer
                node.bases[index] = self.refer(layer)
        self.prepare(executed_names(node))
        node.name = label
        node.body = [s for s in node.body if not (is_field(s) and removed.intersection(bound_names(s)))]
        chain = [c for layer in layers.values() for c in (layer, *world.layers[layer])]
        node.body = [class_level(self, s, layers, chain) for s in node.body]
        decorate = next((world.dataclasses[c] for c in chain if world.dataclasses[c]), None)
        for decorator in [d for d in node.decorator_list if is_dataclass(d)]:
            expression = ast.fix_missing_locations(ast.Expression(decorator))
            decorate = eval(compile(expression, "", "eval"), self.namespace)  # noqa: S307 (the tests' own text)
            node.decorator_list.remove(decorator)
        node.decorator_list += [self.refer(decorate)] if decorate else []
        node.body = node.body or [ast.Pass()]
        made: dict[str, Any] = {}
        self.execute(node, made)
        cls = made[label]
        world.dataclasses[cls], world.layers[cls] = decorate, [c for c in cls.__mro__ if c in chain]
        for gone in {n for statement in removals for n in bound_names(statement)}:
            kept = [vars(c)[gone] for c in cls.__mro__[1:] if gone in vars(c) and c not in chain]
            setattr(cls, gone, kept[0] if kept else Removed())
        for key, value in list(vars(cls).items()):
            kept = next((vars(c)[key] for c in world.layers[cls] if key in vars(c)), None)
            if isinstance(value, property) and isinstance(kept, property):
                setattr(
                    cls, key, property(value.fget, value.fset or kept.fset, value.fdel or kept.fdel, value.__doc__)
                )
            elif "super_kwargs" in getattr(getattr(value, "__code__", None), "co_varnames", ()):
                setattr(cls, key, take_super_kwargs(value, getattr(super(cls, cls), key)))
        return cls

    def meaning(self, name: str) -> str:
        """A text that two members have in common if and only if they mean the same."""
        node = Rewriter(self).visit(copy.deepcopy(self.definition.own[name]))
        bases = [
            b and [v.meaning(n) for v, n in self.parent(b[0]).sources(b[1])]
            for b in self.definition.bases.get(name, ())
        ]
        for each in ast.walk(node):
            if isinstance(each, ast.Name) and each.id in self.definition.members:
                each.id = self.final(each.id)
        node.name = self.final(name)
        return f"{ast.dump(node)} {bases}"

    def refer(self, value: Any) -> ast.Name:
        """An expression that means a live object."""
        name = f"<{next(COUNT)}>"
        self.namespace[name] = value
        return ast.Name(name, ast.Load())


def class_level(view: View, statement: ast.stmt, layers: dict[str, type], chain: list[type]) -> ast.stmt:
    """A statement of a class body, in which a parent's table is its layer's, and a parent's field stays a field."""
    if isinstance(statement, FUNCTIONS):
        return statement
    for reference in ast.walk(statement):
        if isinstance(reference, ast.Attribute) and getattr(reference.value, "id", None) in layers:
            reference.value = view.refer(layers[reference.value.id])
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        name = statement.targets[0].id
        annotation = next((c.__annotations__[name] for c in chain if name in c.__annotations__), None)
        if annotation is not None and "ClassVar" not in annotation:
            return ast.AnnAssign(statement.targets[0], ast.parse(annotation).body[0].value, statement.value, 1)
    return statement


def take_super_kwargs(function: Any, inherited: Any) -> Any:
    """The method with the signature that it stands for: the parent's parameters, ours in their place, then the rest of ours."""
    theirs = list(inspect.signature(inherited).parameters.values())[1:]
    receiver, *ours = inspect.signature(function).parameters.values()
    mine = {p.name: p for p in ours if p.name != "super_kwargs"}
    merged = [receiver, *(mine.pop(p.name, p) for p in theirs), *mine.values()]
    try:
        signature = inspect.Signature(sorted(merged, key=lambda p: p.kind))
    except ValueError as error:
        raise Refused(str(error)) from None

    @functools.wraps(function)
    def method(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for p in theirs:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                given |= given.pop(p.name) or {}
        return function(given.pop(receiver.name), **given)

    method.__signature__ = signature
    return method


def is_field(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.AnnAssign) or "= field(" in ast.unparse(statement)


def is_dataclass(decorator: ast.expr) -> bool:
    return "dataclass" in ast.unparse(decorator).partition("(")[0].split(".")


class Removed:
    """A member that was taken away: whoever asks for it is told so."""

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError


class Rewriter(ast.NodeTransformer):
    """What a statement says where it is inherited: literals, attributes; and assignments to global names."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.declared: set[str] = set()

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str):
            node.value = self.view.literal(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        node.values = [v if isinstance(v, ast.Constant) else self.generic_visit(v) for v in node.values]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self.view.attribute(node.attr)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.declared and isinstance(node.ctx, ast.Store):
            return ast.Attribute(ast.Name("__family__", ast.Load()), node.id, node.ctx)
        return node

    def visit_scope(self, node: Any) -> ast.AST:
        outer = self.declared
        own = {name for s in ast.walk(node) if isinstance(s, ast.Global) for name in s.names}
        self.declared = own if isinstance(node, FUNCTIONS) else set()
        self.generic_visit(node)
        self.declared = outer
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ListComp = visit_SetComp = visit_scope
    visit_DictComp = visit_GeneratorExp = visit_ClassDef = visit_scope


class Assigner:
    """Stands for the module in `global name; name = …`."""

    def __init__(self, view: View) -> None:
        vars(self)["view"] = view

    def __setattr__(self, name: str, value: Any) -> None:
        self.view.world.assign(self.view.final(name), value)

    def __getattr__(self, name: str) -> Any:
        return self.view.namespace[name]
