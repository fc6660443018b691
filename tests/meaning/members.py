"""The members of random families: methods, constructors, configurations, and what their text may name."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from meaning.bodies import (
    LOCALS,
    SHADOWS,
    Method,
    Parameter,
    Scope,
    arguments,
    call,
    condition,
    expression,
    signature,
    statements,
)

KINDS = ("methods", "attributes", "settings", "parts", "init")  # init: the parameters of the constructor, or nothing
TRACED = """
def traced(function):
    @functools.wraps(function)
    def traced_function(self, *args, **kwargs):
        self.log.append("traced")
        return function(self, *args, **kwargs)

    return traced_function
"""
ORDER = {
    "Part": 0,
    "Unit": 0,
    "Cell": 1,
    "Model": 2,
    "Tower": 2,
    "Head": 3,
}  # a class may hold what has less, and no model
SAFE = ("clip", "trim")  # functions that constants and constructors call: they have no effects and do not raise
WORDS = ("scan", "fold", "step", "turn", "blend", "cast")
ROOTS = {
    "Alpha": (("Part", "Cell", "Model", "Head"), "clip", "mix", "LIMIT", ("LOW", "HIGH"), "TABLE"),
    "Omega": (("Unit", "Tower"), "trim", "stir", "FLOOR", ("NEAR", "FAR"), "SHELF"),
}


@dataclass
class Class:
    """A class of a family: its own members here, and all that it has with those of its bases."""

    name: str
    home: Family
    base: str | None = None  # the key of its base in the same file
    layer: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def has(self, what: str, family: Family) -> dict[str, Any]:
        """All methods (by name), attributes, settings (class attributes: their kind) or parts (attribute: key)."""
        inherited = family.classes[self.base].has(what, family) if self.base else {}
        return {**inherited, **self.layer[what]}


@dataclass
class Named:
    """A function (with its parameters) or a constant of a family."""

    name: str
    home: Family
    parameters: tuple[Parameter, ...] = ()


@dataclass
class Family:
    """A definition: the members of its family by key (what they are called does not matter), and its text."""

    file: str
    prefix: str
    type: str
    parents: list[Family] = field(default_factory=list)
    classes: dict[str, Class] = field(default_factory=dict)
    functions: dict[str, Named] = field(default_factory=dict)
    constants: dict[str, Named] = field(default_factory=dict)
    imports: dict[tuple[str, str], str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)  # of the configuration
    text: str = ""
    neutral: bool | None = None  # what sub-families would share says nothing of the family; None: a sub-family
    twins: list[Family] = field(default_factory=list)  # the sub-families


class Members:
    """Writes members; the same random numbers give the same text."""

    random: Random

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def name_of(self, family: Family, member: Class | Named) -> str | None:
        """How the family's own text spells a member: by its name, or by the import from the parent that defines it."""
        if member.home is family:
            return member.name
        for parent in family.parents:
            for theirs in (*parent.classes.values(), *parent.functions.values(), *parent.constants.values()):
                if theirs.home is parent is member.home and derived(theirs.name, parent, family) == member.name:
                    alias = (
                        f"{theirs.name}_"
                        if theirs.name in LOCALS + SHADOWS and theirs.name[0].islower()
                        else theirs.name
                    )
                    return family.imports.setdefault((parent.file, theirs.name), alias)
        return None

    def scope(
        self, family: Family, cls: Class | None, method: Method, inherited: dict[str, Any] | None = None
    ) -> Scope:
        """What a body may name: a method's of a class, or a function's."""
        pool = LOCALS + (SHADOWS if self.chance(0.1) else ())
        scope = Scope(self.random, method.rank, [p.name for p in method.parameters], pool=pool)
        before = list(family.functions.values())
        before = (
            before
            if cls
            else [f for f in before if f.name != method.name][: [f.name for f in before].index(method.name)]
        )
        named = [(self.name_of(family, f), f.parameters) for f in before if not f.name.startswith("traced")]
        scope.functions = [(n, p) for n, p in named if n and n not in pool]
        usable = [
            c for key, c in family.constants.items() if method.name not in SAFE or not key.endswith(("TABLE", "SHELF"))
        ]
        constants = [self.name_of(family, c) for c in usable if self.chance(0.5)]
        scope.atoms = [n for n in constants if n and n not in pool]
        if method.name not in SAFE:
            scope.constants = [c.name for c in family.constants.values() if c.home is family and c.name == "COUNTER"]
        classes = {n: c for c in family.classes.values() if (n := self.name_of(family, c)) and n not in pool}
        scope.atoms += [f'len("{c.name}")' for c in family.classes.values()] + [f'len("{family.type}")']
        scope.atoms += [f"len({n}.__name__)" for n in classes]
        for name, c in classes.items() if method.name not in SAFE else ():
            scope.atoms += [f"{name}.{n}" for n, kind in c.has("settings", family).items() if kind == "int"]
        if cls is None:
            scope.logs, scope.safe = False, method.name in SAFE
            if family.neutral and not method.name.startswith(family.type):
                scope.atoms, scope.constants = [], []
            return scope
        methods: dict[str, Method] = cls.has("methods", family)
        settings = [n for n, kind in cls.has("settings", family).items() if kind == "int"]
        kinds = (
            ("class", "static")
            if method.kind in ("class", "static")
            else ("method", "property", "generator", "class", "static")
        )
        usable = [m for m in methods.values() if m.kind in kinds]
        if method.kind == "static":
            scope.receiver, usable = "", []
        elif method.kind == "class":
            scope.receiver, scope.attributes = "cls", settings
        else:
            scope.attributes = [*settings, *cls.has("attributes", family)]
            scope.own = [*cls.layer["attributes"], "count"]
            parts = {a: family.classes[key].has("methods", family) for a, key in cls.has("parts", family).items()}
            scope.parts = {a: list(found.values()) for a, found in parts.items()}
            scope.atoms += [f"int(isinstance(self.{a}, {n}))" for a in parts for n in classes]
            scope.atoms += [f'int(self.kind == "{family.type}")'] if "kind" in cls.has("settings", family) else []
            if method.rank >= 0:
                usable.append(Method("tick", -1, (Parameter("value", "1"),)))
        if method.kind == "property":  # reading an attribute counts as free of effects
            usable, scope.parts, scope.constants, scope.safe = [], {}, [], True
            scope.functions = [(n, p) for n, p in scope.functions if n.rstrip("_") in SAFE]
        scope.methods = [m for m in usable if m.rank < method.rank]
        scope.logs = scope.receiver == "self"
        if inherited and method.kind != "static":
            theirs = [m for m in inherited["methods"].values() if m.kind in kinds]
            theirs = [m for m in theirs if method.kind != "property" or m.kind == "property"]
            same = [m for m in theirs if m.name == method.name]
            scope.supers = same * 4 + [m for m in theirs if m.rank <= method.rank]
            scope.supers += [Method(n, -1, (), "property") for n, k in inherited["settings"].items() if k == "int"]
        return scope

    def function(self, scope: Scope, method: Method, receiver: str = "", first: tuple[str, ...] = ()) -> list[str]:
        """The text of a function with a random body after its first lines."""
        lines = [*first, *statements(scope, 0 if scope.safe else self.random.choice((0, 1, 1, 2, 3)))]
        if method.kind == "generator":
            theirs = [m for m in scope.supers if m.kind == "generator"]
            if theirs and self.chance(0.7):
                lines.append(f"yield from super().{theirs[0].name}({arguments(scope, theirs[0].parameters, 1)})")
            lines += [f"yield {expression(scope)}" for _ in range(2)]
        elif method.kind != "init":
            own = [m for m in scope.supers if m.name == method.name]
            value = call(scope, "super()", own[0], 1) if own and self.chance(0.4) else expression(scope)
            lines.append(f"return {value}")
        if any(line.endswith("COUNTER = COUNTER + 1") for line in lines):
            lines.insert(0, "global COUNTER")
        name = "__init__" if method.kind == "init" else method.name
        return [
            f"def {name}({signature(method.parameters, receiver)}):",
            *(f"    {line}" for line in lines or ["pass"]),
            "",
        ]

    def parameters(self, like: tuple[Parameter, ...] | None = None) -> tuple[Parameter, ...]:
        """Parameters for a new method, or for one that overrides a method with those."""
        random = self.random
        if like is None:
            names = random.sample(LOCALS[:6], random.randint(0, 3))
            cut = random.randint(0, len(names))
            kinds = ["/" if self.chance(0.05) else ""] + [""] * 3
            found = [
                Parameter(n, str(random.randint(0, 5)) if i >= cut else None, kinds[i]) for i, n in enumerate(names)
            ]
            if found and found[-1].kind == "" and self.chance(0.15):
                found[-1] = found[-1]._replace(kind="*")
            return tuple(found)
        found = list(like)
        if self.chance(0.25):
            fresh = random.sample(LOCALS, len(found))
            found = [p._replace(name=n) for p, n in zip(found, fresh, strict=True)]
        if self.chance(0.2) and all(p.kind != "*" for p in found):
            spare = next(n for n in ("extra", "more", "again") if n not in [p.name for p in found])
            found.append(Parameter(spare, "2", random.choice(("", "*"))))
        if self.chance(0.1):
            found = [p._replace(default=str(random.randint(0, 5))) if p.default else p for p in found]
        return tuple(found)

    def method(
        self, family: Family, cls: Class, method: Method, inherited: dict[str, Any] | None, setter: bool = False
    ) -> list[str]:
        receiver = {"static": "", "class": "cls"}.get(method.kind, "self")
        lines = self.function(self.scope(family, cls, method, inherited), method, receiver)
        decorators = {"static": ["@staticmethod"], "class": ["@classmethod"], "property": ["@property"]}.get(
            method.kind, []
        )
        traced = family.functions.get("traced")
        if method.kind == "method" and traced and self.chance(0.15) and (name := self.name_of(family, traced)):
            decorators = [f"@{name}"]
        if setter:
            value = expression(Scope(self.random, 0, ["value"]), 1)
            lines += [f"@{method.name}.setter", f"def {method.name}(self, value):", f"    self.stored = {value}", ""]
        return decorators + lines

    def settings(self, family: Family, cls: Class) -> list[str]:
        """Class attributes of a root's class."""
        names = {"limit": "int", "marks": "tuple", "plan": "dict", "kind": "str", "label": "str"}
        values = {
            "limit": str(self.random.randint(1, 9)),
            "marks": "(1, 2)",
            "plan": '{"a": 1}',
            "kind": f'"{family.type}"',
        }
        values["label"] = f'"{family.prefix}{self.random.choice(ROOTS[family.prefix][0])}"'
        for other in family.classes.values():
            (
                names[f"{other.name[len(family.prefix) :].lower()}_class"],
                values[f"{other.name[len(family.prefix) :].lower()}_class"],
            ) = "class", other.name
        chosen = [name for name in names if self.chance(0.4)]
        cls.layer["settings"] = {name: names[name] for name in chosen}
        return [f"{n}: ClassVar = {values[n]}" if self.chance(0.1) else f"{n} = {values[n]}" for n in chosen]

    def constructor(
        self, family: Family, cls: Class, inherited: dict[str, Any] | None, others: dict[str, Class]
    ) -> list[str]:
        random = self.random
        own = next((key for key, other in others.items() if other is cls), "Head")
        theirs = inherited["init"].get("init", ()) if inherited else ()
        spare = [n for n in ("x", "y", "size") if n not in [p.name for p in theirs]]
        parameters = (*theirs, *(Parameter(n, "1") for n in spare if self.chance(0.3)))
        cls.layer["init"] = {"init": parameters}
        whole = (Parameter("config"), Parameter("log"), *parameters)
        scope = Scope(random, 0, [p.name for p in parameters])
        scope.atoms = ["config.size", "config.depth"]
        named = [(self.name_of(family, f), f) for key, f in family.functions.items() if key in SAFE]
        scope.functions, scope.safe = [(n, f.parameters) for n, f in named if n], True
        lines, after = [], []
        if inherited is None:
            lines = ["self.config = config", "self.log = log", "self.count = 0", "self.stored = 1"]
            for name in random.sample(("first", "second", "third", family.type), 2):
                cls.layer["attributes"][name] = None
                lines.append(f"self.{name} = {expression(scope)}")
            after = ["self.post_init()"] if self.chance(0.3) and ORDER[own] > 1 else []
        else:
            words = ["config", "log"] if self.chance(0.7) else ["log=log", "config=config"]
            words += [f"{p.name}={expression(scope, 1)}" for p in theirs if self.chance(0.5)]
            lines = [f"{random.choice(LOCALS)} = {expression(scope)}"] if self.chance(0.4) else []
            lines += [f"super().__init__({', '.join(words)})"]
            if self.chance(0.1) and "post_init" not in inherited["methods"]:
                lines[-1:] = [
                    f"if {condition(scope)}:",
                    f"    {lines[-1]}",
                    "else:",
                    "    super().__init__(config, log)",
                ]
            gone = None
            for name in inherited["attributes"]:
                if self.chance(0.25):
                    lines.append(f"self.{name} = {expression(scope)}")
                elif gone is None and self.chance(0.08):
                    gone = name
                    lines.append(f"del self.{name}")
            if self.chance(0.5):
                cls.layer["attributes"]["fresh"] = None
                lines.append(f"self.fresh = {expression(scope)}")
            after = ["self.post_init()"] if "post_init" in inherited["methods"] and self.chance(0.5) else []
        for key, other in others.items():
            spelled = self.name_of(family, other)
            if spelled and ORDER.get(key, 9) < min(ORDER[own], 2) and self.chance(0.6):
                cls.layer["parts"][f"{key.lower()}_part"] = key
                lines.append(f"self.{key.lower()}_part = {spelled}(config, log)")
        lines = [f"def __init__({signature(whole)}):", *(f"    {line}" for line in lines + after), ""]
        if after and inherited is None:
            cls.layer["methods"]["post_init"] = Method("post_init", 9)
            lines += ["def post_init(self):", '    self.log.append("post")', "    return 0", ""]
        return lines

    def configuration(self, family: Family, base: str | None) -> list[str]:
        """The configuration: a dataclass, or what overrides its parent's."""
        random, lines = self.random, []
        cls = family.classes["Config"] = Class(f"{family.prefix}Config", family)
        if family.type != family.file:
            lines.append(
                random.choice((f'model_type: ClassVar[str] = "{family.type}"', f'model_type = "{family.type}"'))
            )
        limits = [
            n for key, c in family.constants.items() if key in ("LIMIT", "FLOOR") and (n := self.name_of(family, c))
        ]
        if base is None:
            family.fields = {"size": "int", "depth": "int"} | {
                n: t for n, t in (("label", "str"), ("items", "list"), ("ratio", "int")) if self.chance(0.5)
            }
            values = {"size": str(random.randint(1, 5)), "depth": "2", "label": f'"{family.type}"', "ratio": limits[0]}
            values["items"] = "field(default_factory=lambda: [1, 2])"
            lines += [f"{name}: {kind} = {values[name]}" for name, kind in family.fields.items()]
            decorator = ["@dataclass(kw_only=True)"]
        else:
            decorator = ["@dataclass(kw_only=True)"] if self.chance(0.3) else []
            for name, kind in list(family.fields.items()):
                value = {
                    "int": limits[0] if limits and self.chance(0.3) else "7",
                    "str": '"own"',
                    "list": "field(default_factory=list)",
                }[kind]
                if self.chance(0.3):
                    lines.append(random.choice((f"{name} = {value}", f"{name}: {kind} = {value}")))
                elif name not in ("size", "depth") and self.chance(0.15):
                    lines.append(f"{name} = removed")
                    del family.fields[name]
            if self.chance(0.4):
                family.fields[f"{family.prefix.lower()}_extra"] = "int"
                lines.append(f"{family.prefix.lower()}_extra: int = {random.randint(0, 9)}")
        lines.append("")
        if base is None or self.chance(0.3):
            lines += ["def __post_init__(self):", "    super().__post_init__()" if base else "    self.area = 0"]
            lines += [f"    self.area = self.size * {random.randint(1, 5)}", ""]
        if base is None or self.chance(0.3):
            lines += [
                "@property",
                "def half(self):",
                f"    return {'super().half' if base and self.chance(0.5) else 'self.size'} // 2",
                "",
            ]
            if base is None or self.chance(0.3):
                lines += [
                    "@half.setter",
                    "def half(self, value):",
                    f"    self.size = value * {random.randint(1, 3)}",
                    "",
                ]
        if base is None or self.chance(0.2):
            lines += ["@classmethod", "def small(cls, size=1):", "    return cls(size=size, depth=1)", ""]
        cls.layer["methods"] = {"half": Method("half", 0, (), "property")}
        lines = lines if any(lines) else ["pass"]
        return [
            *decorator,
            f"class {cls.name}{f'({base})' if base else ''}:",
            *(f"    {line}" if line else "" for line in lines),
            "",
        ]


def derived(name: str, parent: Family, child: Family) -> str:
    """What a member is called in a child that does not mention it."""
    for old, new in (
        (parent.prefix, child.prefix),
        (f"{parent.type}_", f"{child.type}_"),
        (f"{parent.type.upper()}_", f"{child.type.upper()}_"),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
