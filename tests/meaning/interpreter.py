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

import ast
import contextlib
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meaning.constructors import shorten
from meaning.definition import FUNCTIONS, Definition, Library, RefusedError, bound_names
from meaning.rewriting import NOWHERE, Assigner, Rewriter, changed

COUNT = itertools.count()


def interpret(root: Path, path: str | Path, library: Library | None = None) -> dict[str, Any]:
    """The namespace of a definition, with its whole family; raises RefusedError where the language gives it no meaning."""
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
                    raise RefusedError(f"different members land on {name}")
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
        self.literals: dict[str, str] = {}
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
            raise RefusedError(f"{self.definition.file.name} has no {name}")
        return [source for view, theirs in found for source in view.sources(theirs)]

    def final(self, name: str) -> str:
        """What a member of this family is called in the definition that is interpreted."""
        child = self.child
        return name if child is None else child.final(child.definition.role(child.part, self.definition, name))

    def literal(self, text: str) -> str:
        """What a whole string says when it is inherited."""
        if self.child is None:
            return text
        if text not in self.literals:
            child, part, said = self.child.definition, self.child.part, text
            if text == self.definition.model_type():
                said = child.model_type(part)
            elif text in self.definition.members:
                with contextlib.suppress(RefusedError):
                    said = child.role(part, self.definition, text)
            self.literals[text] = self.child.literal(said)
        return self.literals[text]

    def attribute(self, name: str) -> str:
        if self.child is None:
            return name
        own_type = name == self.definition.model_type()
        return self.child.attribute(self.child.definition.model_type(self.child.part) if own_type else name)

    def member(self, name: str) -> str | None:
        """What the definition that is interpreted calls the member of its family that a name means here, if it means one."""
        definition = self.definition
        if name in definition.imports:
            parent, theirs = definition.imports[name]
            return self.final(definition.role(self.part, parent, theirs)) if parent in definition.parents else None
        return self.final(name) if name in definition.members else None

    def bind(self, name: str) -> None:
        """Give a name its meaning, if it has one and that is not being made right now."""
        world, imports = self.world, self.definition.imports
        if name in self.namespace:
            return
        with contextlib.suppress(RefusedError, NameError):
            final = self.member(name)
            if final is not None:
                self.namespace[name] = world.object(final)
                world.holders.setdefault(final, []).append((self.namespace, name))
            elif name in imports:
                foreign, theirs = imports[name]
                if foreign not in world.embedded:
                    world.embedded[foreign] = World(foreign)
                self.namespace[name] = world.embedded[foreign].object(theirs)

    def prepare(self, name: str) -> None:
        """Bind the names that executing a member's statement looks up, and those that what it calls may look up."""
        names, calls = self.definition.looked_up(name)
        for each in names:
            self.bind(each)
        if calls:
            self.prepare_calls(names, set())

    def prepare_calls(self, names: Iterable[str], seen: set[tuple[View, str]]) -> None:
        for name in names:
            self.bind(name)
            if (self, name) not in seen:
                seen.add((self, name))
                with contextlib.suppress(RefusedError):
                    final = self.member(name)
                    for view, own in self.world.root.sources(final) if final else ():
                        view.prepare_calls(view.definition.mentioned(own), seen)

    def execute(self, statement: ast.stmt, target: dict[str, Any]) -> None:
        tree, flags = ast.Module([statement], []), annotations.compiler_flag
        exec(compile(tree, str(self.definition.file), "exec", flags, dont_inherit=True), self.namespace, target)

    def rewritten(self, node: Any) -> Any:
        """A statement as it reads where it is inherited; itself, if that is how it stands."""
        attributes, strings, declares = self.definition.words(node)
        same = all(self.attribute(n) == n for n in attributes) and all(self.literal(s) == s for s in strings)
        return node if same and not declares else Rewriter(self).visit(node)

    def make(self, name: str) -> Any:
        """The member of that name, which the definition itself defines; a statement is executed once."""
        node = self.definition.own[name]
        if id(node) not in self.made:
            if isinstance(node, ast.ClassDef):
                self.made[id(node)] = {name: self.make_class(name, self.final(name), set(), frozenset())}
            else:
                self.prepare(name)
                made: dict[str, Any] = {}
                if isinstance(node, FUNCTIONS):
                    called = changed(self.rewritten(node), name=self.final(name))
                    self.execute(called, made)
                    made = {name: made[called.name]}
                else:
                    self.execute(self.rewritten(node), made)
                self.made[id(node)] = made
        return self.made[id(node)][name]

    def make_class(self, name: str, label: str, removed: set[str], undone: frozenset[str]) -> type:
        """The class, made anew, called `label`, without `removed` fields; its heir's constructor leaves `undone` undone."""
        definition, world = self.definition, self.world
        node = definition.classes[name]
        removals = [s for s in node.body if getattr(getattr(s, "value", None), "id", None) in definition.removers]
        gone = {n for statement in removals for n in bound_names(statement)}
        init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
        shortened, passed = shorten(init, undone) if init else (None, undone)
        layers: dict[str, type] = {}
        bases = [Rewriter(self).visit(base) for base in node.bases]
        for index, source in enumerate(definition.bases[name]):
            if source is not None:
                view, own = self.parent(source[0]).sources(source[1])[0]
                layer = view.make_class(own, label, removed | gone, passed)
                layers[bases[index].id] = layer
                bases[index] = self.refer(layer)
        self.prepare(name)
        chain = [c for layer in layers.values() for c in (layer, *world.layers[layer])]
        body = []
        for statement in node.body:
            if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
                body.append(self.rewritten(shortened if statement is init else statement))
            elif statement not in removals and not (
                removed.intersection(bound_names(statement)) and is_field(statement)
            ):
                body.append(class_level(self, Rewriter(self).visit(statement), layers, chain))
        decorate = next((world.dataclasses[c] for c in chain if world.dataclasses[c]), None)
        decorators = []
        for decorator in node.decorator_list:
            if "dataclass" in ast.unparse(decorator).partition("(")[0].split("."):
                expression = ast.Expression(Rewriter(self).visit(decorator))
                decorate = eval(compile(expression, "", "eval"), self.namespace)  # noqa: S307 (the tests' own text)
            else:
                decorators.append(Rewriter(self).visit(decorator))
        decorators += [self.refer(decorate)] if decorate else []
        body = body or [ast.Pass(**NOWHERE)]
        made: dict[str, Any] = {}
        self.execute(changed(node, name=label, bases=bases, body=body, decorator_list=decorators), made)
        cls = made[label]
        world.dataclasses[cls], world.layers[cls] = decorate, [c for c in cls.__mro__ if c in chain]
        for each in gone:
            setattr(cls, each, Removed(cls, each, world.layers[cls]))
        for key, value in list(vars(cls).items()):
            kept = next((vars(c)[key] for c in world.layers[cls] if key in vars(c)), None)
            if isinstance(value, property) and isinstance(kept, property):
                accessors = value.fget, value.fset or kept.fset, value.fdel or kept.fdel
                setattr(cls, key, property(*accessors, value.__doc__))
            elif "super_kwargs" in getattr(getattr(value, "__code__", None), "co_varnames", ()):
                setattr(cls, key, take_super_kwargs(value, getattr(super(cls, cls), key)))
        return cls

    def meaning(self, name: str) -> str:
        """A text that two members have in common if and only if they mean the same."""
        node = Rewriter(self).visit(self.definition.own[name])
        bases = [
            b and [v.meaning(n) for v, n in self.parent(b[0]).sources(b[1])]
            for b in self.definition.bases.get(name, ())
        ]
        names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
        local = {n.id for n in names if isinstance(n.ctx, ast.Store)} if isinstance(node, FUNCTIONS) else set()
        for each in names:
            if each.id in self.definition.members and each.id not in local:
                each.id = self.final(each.id)
        node.name = self.final(name)
        return f"{ast.dump(node)} {bases}"

    def refer(self, value: Any) -> ast.Name:
        """An expression that means a live object."""
        name = f"<{next(COUNT)}>"
        self.namespace[name] = value
        return ast.Name(name, ast.Load(), **NOWHERE)


def class_level(view: View, statement: ast.stmt, layers: dict[str, type], chain: list[type]) -> ast.stmt:
    """A statement of a class body, in which a parent's table is its layer's, and a parent's field stays a field."""
    for reference in ast.walk(statement):
        if isinstance(reference, ast.Attribute) and getattr(reference.value, "id", None) in layers:
            reference.value = view.refer(layers[reference.value.id])
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        name = statement.targets[0].id
        annotation = next((c.__annotations__[name] for c in chain if name in c.__annotations__), None)
        if annotation is not None and "ClassVar" not in annotation:
            field = ast.parse(annotation, mode="eval").body
            return ast.AnnAssign(statement.targets[0], field, statement.value, 1, **NOWHERE)
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
        raise RefusedError(str(error)) from None

    @functools.wraps(function)
    def method(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for p in theirs:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                given |= given.pop(p.name) or {}
        first = [given.pop(p.name) for p in (receiver, *ours) if p is receiver or p.kind is p.POSITIONAL_ONLY]
        return function(*first, **given)

    method.__signature__ = signature
    return method


def is_field(statement: ast.stmt) -> bool:
    text = ast.unparse(statement)
    return "= field(" in text or (isinstance(statement, ast.AnnAssign) and "ClassVar" not in text)


class Removed:
    """A member that was taken away: whoever asks for it gets what the other bases have, not the layers."""

    def __init__(self, cls: type, name: str, layers: list[type]) -> None:
        self.cls, self.name, self.layers = cls, name, layers

    def behind(self, owner: type) -> Any:
        """What the other bases have, as it stands in their namespaces; None where they have nothing."""
        after = owner.__mro__[owner.__mro__.index(self.cls) + 1 :]
        return next((vars(c)[self.name] for c in after if c not in self.layers and self.name in vars(c)), None)

    def __get__(self, instance: Any, owner: type) -> Any:
        value, own = self.behind(owner), {} if instance is None else vars(instance)
        if self.name in own and not hasattr(value, "__set__"):
            return own[self.name]
        if value is None:
            raise AttributeError(self.name)
        return value.__get__(instance, owner) if hasattr(value, "__get__") else value

    def __set__(self, instance: Any, value: Any) -> None:
        behind = self.behind(type(instance))
        if hasattr(behind, "__set__"):
            behind.__set__(instance, value)
        else:
            vars(instance)[self.name] = value
