"""Random function bodies over integers: every form of expression, statement and super call that flattening must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple

# Few names, so that parents' locals and children's clash, and so that locals shadow members of the family.
LOCALS = ("a", "b", "c", "x", "y", "total", "size", "result")
SHADOWS = ("clip", "LIMIT", "AlphaPart", "alpha_mix", "BetaPart")


class Parameter(NamedTuple):
    """A parameter after the receiver; `kind` is "", "/" (positional only), "*" (keyword only)."""

    name: str
    default: str | None = None
    kind: str = ""


@dataclass(frozen=True)
class Method:
    """What a caller must know; a body calls methods of lower rank only, so that nothing recurses."""

    name: str
    rank: int
    parameters: tuple[Parameter, ...] = ()
    kind: str = "method"  # or class, static, property, generator


@dataclass
class Scope:
    """What a body may name."""

    random: Random
    rank: int
    names: list[str]  # locals that have a value
    methods: list[Method] = field(default_factory=list)  # of the receiver, of lower rank
    supers: list[Method] = field(default_factory=list)  # what super() has, of lower or the same rank
    attributes: list[str] = field(default_factory=list)  # of the receiver, integers
    parts: dict[str, list[Method]] = field(default_factory=dict)  # attributes that hold other objects
    atoms: list[str] = field(default_factory=list)  # expressions over the family: constants, class attributes, strings
    functions: list[tuple[str, tuple[Parameter, ...]]] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)  # that `global` may assign
    own: list[str] = field(default_factory=list)  # attributes that may be assigned
    receiver: str = "self"
    logs: bool = True
    pool: tuple[str, ...] = LOCALS
    safe: bool = False  # nothing raises
    whole: bool = False  # no argument is only an attribute: when such a one is read is not part of the meaning

    @property
    def nested(self) -> Scope:
        """The scope of a nested function or comprehension: a copy in which super() may not be called."""
        return replace(self, names=list(self.names), supers=[])

    def chance(self, share: float) -> bool:
        return self.random.random() < share


def signature(parameters: tuple[Parameter, ...], receiver: str = "self") -> str:
    """The text between the brackets of a def."""
    words = [receiver] if receiver else []
    kinds = [p.kind for p in parameters]
    for index, p in enumerate(parameters):
        if p.kind == "*" and "*" not in kinds[:index]:
            words.append("*")
        words.append(p.name if p.default is None else f"{p.name}={p.default}")
        if p.kind == "/" and "/" not in kinds[index + 1 :]:
            words.append("/")
    return ", ".join(words)


def arguments(scope: Scope, parameters: tuple[Parameter, ...], depth: int) -> str:
    """Arguments for a call: positional, keyword in any order, omitted where there is a default, starred."""
    cut = scope.random.randint(0, len(parameters))
    if scope.chance(0.6):
        cut = len(parameters)
    words, keywords = [], []
    for index, p in enumerate(parameters):
        if p.default is not None and scope.chance(0.4):
            cut = min(cut, index)
            continue
        value = expression(scope, depth)
        if scope.whole and value.startswith(f"{scope.receiver}."):
            value = f"{value} + 0"
        if p.kind == "/" or (index < cut and p.kind == ""):
            if p.kind == "/" and index >= cut and p.default is not None:
                continue
            words.append(value)
        else:
            keywords.append(f"{p.name}={value}")
    scope.random.shuffle(keywords)
    if words and scope.chance(0.04):
        words[-1] = f"*[{words[-1]}]"
    if keywords and scope.chance(0.06):
        name, _, value = keywords[-1].partition("=")
        keywords[-1] = f'**{{"{name}": {value}}}'
    return ", ".join(words + keywords)


def expression(scope: Scope, depth: int = 2) -> str:
    """An expression whose value is an integer, or that raises."""
    random = scope.random
    if depth <= 0 or scope.chance(0.3):
        return leaf(scope)
    options: list[tuple[int, Callable[[], str]]] = [
        (6, lambda: f"{expression(scope, depth - 1)} {random.choice('+-*')} {leaf(scope)}"),
        (2, lambda: f"({expression(scope, depth - 1)}) % {random.choice((7, 97, 97 if scope.safe else leaf(scope)))}"),
        (2, lambda: f"({leaf(scope)} if {condition(scope)} else {expression(scope, depth - 1)})"),
        (1, lambda: f"max({leaf(scope)}, {expression(scope, depth - 1)})"),
        (1, lambda: f"[{leaf(scope)}, {expression(scope, depth - 1)}][{random.choice((0, 1, -1))}]"),
        (1, lambda: f"int({condition(scope)})"),
        (2, lambda: comprehension(scope, depth)),
        (1, lambda: f'len(f"{{{unquoted(scope)}}}{random.choice(("-",))}")'),
        (
            1,
            lambda: f"(lambda {(n := local(scope))}, k={leaf(scope)}: {n} + k)({expression(scope.nested, depth - 1)})",
        ),
    ]
    if scope.methods:
        options.append((5, lambda: call(scope, scope.receiver, random.choice(scope.methods), depth - 1)))
    if scope.functions:
        name, parameters = random.choice(scope.functions)
        options.append((3, lambda: f"{name}({arguments(scope, parameters, depth - 1)})"))
    parts = [(name, m) for name, methods in scope.parts.items() for m in methods]
    if parts:
        attribute, method = random.choice(parts)
        options.append((3, lambda: call(scope, f"{scope.receiver}.{attribute}", method, depth - 1)))
    if scope.supers:
        options.append((6, lambda: call(scope, "super()", random.choice(scope.supers), depth - 1)))
    return weighted(random, options)()


def call(scope: Scope, owner: str, method: Method, depth: int) -> str:
    if method.kind == "property":
        return f"{owner}.{method.name}"
    plain = replace(scope, whole=True) if owner == "super()" else scope
    text = f"{owner}.{method.name}({arguments(plain, method.parameters, depth)})"
    return f"sum({text})" if method.kind == "generator" else text


def leaf(scope: Scope) -> str:
    random = scope.random
    options: list[tuple[int, list[str]]] = [
        (3, [str(random.randint(-3, 9))]),
        (6, scope.names),
        (4, [f"{scope.receiver}.{name}" for name in scope.attributes]),
        (3, scope.atoms),
    ]
    return random.choice(weighted(random, [(weight, values) for weight, values in options if values]))


def condition(scope: Scope) -> str:
    random = scope.random
    text = f"{leaf(scope)} {random.choice(('>', '<', '==', '!=', '>='))} {leaf(scope)}"
    return f"{text} {random.choice(('and', 'or'))} {leaf(scope)}" if scope.chance(0.15) else text


def comprehension(scope: Scope, depth: int) -> str:
    name, inner = local(scope), scope.nested
    inner.names.append(name)
    text = f"{expression(inner, depth - 1)} for {name} in range({scope.random.randint(1, 3)})"
    return scope.random.choice((f"sum({text})", f"sum([{text}])", f"len({{{text}}})", f"sum(({text}))"))


def local(scope: Scope) -> str:
    return scope.random.choice(scope.pool)


def fresh(scope: Scope) -> str:
    """A local that has no value here, so that nobody misses it when it is unbound."""
    return scope.random.choice([name for name in scope.pool if name not in scope.names] or ["spare"])


def unquoted(scope: Scope) -> str:
    text = leaf(scope)
    return "1" if '"' in text else text


def statements(scope: Scope, count: int, depth: int = 2) -> list[str]:
    """Statements, one after the other; names that they surely bind are known to what follows."""
    return [line for _ in range(count) for line in statement(scope, depth)]


def statement(scope: Scope, depth: int) -> list[str]:
    random = scope.random
    options: list[tuple[int, Callable[[Scope], Iterator[str]]]] = [
        (8, assignment),
        (1, nested_function),
        (1, deletion),
    ]
    if scope.logs:
        options += [(4, note)]
    if scope.own:
        options += [(4, attribute_assignment)]
    if depth > 0:
        options += [(3, branch), (2, loop), (1, attempt), (1, match), (1, context), (1, count_down)]
    if scope.supers:
        options += [(6, super_statement)]
    if scope.constants:
        options += [(1, count_globally)]
    return list(weighted(random, options)(scope))


def assignment(scope: Scope) -> Iterator[str]:
    name, other, value = local(scope), local(scope), expression(scope)
    bound, kind = [name], scope.random.random()
    if name in scope.names and kind < 0.2:
        yield f"{name} {scope.random.choice('+-')}= {value}"
    elif kind < 0.25:
        yield f"{leaf(scope)} + ({name} := {value})"
    elif kind < 0.45:
        yield scope.random.choice((f"{name} = {other} = {value}", f"{name}, {other} = {value}, {leaf(scope)}"))
        bound.append(other)
    elif kind < 0.5:
        yield f"{name}, *{other}_rest = [{value}, {leaf(scope)}]"
    else:
        yield scope.random.choice((f"{name} = {value}", f"{name} = {value}", f"{name}: int = {value}"))
    scope.names += [n for n in dict.fromkeys(bound) if n not in scope.names]


def attribute_assignment(scope: Scope) -> Iterator[str]:
    target, value, other = f"{scope.receiver}.{scope.random.choice(scope.own)}", expression(scope), local(scope)
    yield scope.random.choice((f"{target} = {value}", f"{target} += {value}"))
    if scope.chance(0.3):
        yield scope.random.choice((f"{target}, {other} = {value}, {leaf(scope)}", f"{target} = {other} = {value}"))
        scope.names += [other] if other not in scope.names else []


def note(scope: Scope) -> Iterator[str]:
    yield f"{scope.receiver}.log.append({expression(scope)})"


def super_statement(scope: Scope) -> Iterator[str]:
    """A super call as a statement of its own, assigned, in a tuple, added, twice, looped over, or by its bound method."""
    random, name = scope.random, local(scope)
    methods = [m for m in scope.supers if m.kind != "property"] or scope.supers
    text = call(scope, "super()", random.choice(methods), 1)
    forms = [
        text,
        f"{name} = {text}",
        f"{name}, {local(scope)}_2 = {text}, {leaf(scope)}",
        f"{name} = {text} + {text}",
    ]
    forms += [f"{name} = {leaf(scope)} and {text}", f"{scope.receiver}.log.append({text})" if scope.logs else text]
    form = random.choice(forms)
    plain = [m for m in methods if m.kind in ("method", "class", "static")]
    if plain and scope.chance(0.1):
        method = random.choice(plain)
        yield f"bound = super().{method.name}"
        form = f"{name} = bound({arguments(scope, method.parameters, 0)})"
    yield form
    if form.startswith((f"{name} =", f"{name},")) and name not in scope.names:
        scope.names.append(name)


def block(scope: Scope, count: int, depth: int = 1) -> list[str]:
    inner = replace(scope, names=list(scope.names))
    return [f"    {line}" for line in statements(inner, count, depth - 1)]


def branch(scope: Scope) -> Iterator[str]:
    yield f"if {condition(scope)}:"
    yield from block(scope, 1)
    if scope.chance(0.4):
        yield f"    return {expression(scope)}"
    if scope.chance(0.4):
        yield "else:"
        yield from block(scope, scope.random.randint(1, 2))


def loop(scope: Scope) -> Iterator[str]:
    name = local(scope)
    yield f"for {name} in range({scope.random.randint(1, 3)}):"
    inner = replace(scope, names=[*scope.names, name])
    yield from block(inner, scope.random.randint(1, 2))
    if scope.chance(0.3):
        yield f"    if {condition(inner)}:"
        yield f"        {scope.random.choice(('break', 'continue', f'return {leaf(inner)}'))}"
    if scope.chance(0.15):
        yield "else:"
        yield from block(scope, 1)


def count_down(scope: Scope) -> Iterator[str]:
    yield "steps = 2"
    yield "while steps:"
    yield "    steps -= 1"
    yield from block(scope, 1)


def attempt(scope: Scope) -> Iterator[str]:
    name = fresh(scope)
    yield "try:"
    yield from block(scope, 1)
    yield f"    if {condition(scope)}:"
    yield f"        raise {scope.random.choice(('ValueError', 'KeyError'))}({leaf(scope)})"
    yield f"except ValueError as {name}:"
    yield from block(scope, 1)
    if scope.chance(0.3):
        yield "finally:"
        yield from block(scope, 1)


def match(scope: Scope) -> Iterator[str]:
    name = local(scope)
    yield f"match {leaf(scope)}:"
    yield f"    case {scope.random.randint(0, 3)} | 'alpha':"
    yield from (f"    {line}" for line in block(scope, 1))
    yield f"    case {name}:"
    yield from (f"    {line}" for line in block(replace(scope, names=[*scope.names, name]), 1))


def context(scope: Scope) -> Iterator[str]:
    name = local(scope)
    yield f"with contextlib.nullcontext({expression(scope)}) as {name}:"
    yield from block(replace(scope, names=[*scope.names, name]), 1)


def nested_function(scope: Scope) -> Iterator[str]:
    """A closure over the locals as they are when it is called, with a local of its own."""
    name, inner = local(scope), scope.nested
    kept = [n for n in scope.names if n != name]
    inner.names[:] = [*kept, name]
    inner.logs = False
    yield f"def helper({name}={leaf(scope)}):"
    if kept and scope.chance(0.3):
        target = scope.random.choice(kept)
        yield f"    nonlocal {target}"
        yield f"    {target} = {target} + 1"
    yield f"    return {expression(inner, 1)}"
    result = local(scope)
    yield f"{result} = helper({leaf(scope) if scope.chance(0.5) else ''})"
    if result not in scope.names:
        scope.names.append(result)


def deletion(scope: Scope) -> Iterator[str]:
    name = fresh(scope)
    yield f"{name} = {leaf(scope)}"
    yield f"del {name}"


def count_globally(scope: Scope) -> Iterator[str]:
    """Whoever writes the function declares the name global."""
    name = scope.random.choice(scope.constants)
    yield f"{name} = {name} + 1"


def weighted(random: Random, options: list[tuple[int, Any]]) -> Any:
    return random.choices([value for _, value in options], [weight for weight, _ in options])[0]
