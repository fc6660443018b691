"""Random families of definitions, two to four levels deep."""

from __future__ import annotations

from random import Random
from typing import Any

from meaning.bodies import Method, Parameter, Scope, arguments, expression, signature, statements
from meaning.members import KINDS, ROOTS, SAFE, TRACED, WORDS, Class, Family, Members, Named, derived


class Writer(Members):
    """Writes one family after the other; the same random numbers give the same text."""

    def __init__(self, random: Random, number: int) -> None:
        self.random, self.number = random, number
        self.families: list[Family] = []

    def write(self) -> list[Family]:
        first = self.root("Alpha")
        parents = [first, self.root("Omega")] if self.chance(0.2) else [first]
        latest = self.child("Beta", parents)
        if self.chance(0.9):
            latest = self.child("Gamma", [latest])
            if self.chance(0.7):
                latest = self.child("Delta", [latest])
        if self.chance(0.4):
            self.child("Sigma", [first])
        if latest.neutral:
            self.twins("Tau", latest)
        return self.families

    def start(self, prefix: str, parents: list[Family]) -> Family:
        file = f"c{self.number}_{prefix.lower()}"
        family = Family(file, prefix, prefix.lower() if self.chance(0.8) else file, parents)
        family.neutral = all(p.neutral for p in parents) if parents else self.chance(0.3)
        self.families.append(family)
        return family

    def finish(self, family: Family, body: list[str]) -> Family:
        lines = [
            "import contextlib",
            "import functools",
            "from dataclasses import dataclass, field",
            "from typing import ClassVar",
            "",
        ]
        lines += [
            f"from .modular_{file} import {name}" + (f" as {alias}" if alias != name else "")
            for (file, name), alias in family.imports.items()
        ]
        lines += ["from unibody.core import removed", ""] if any("removed" in line for line in body) else [""]
        family.text = "\n".join([*lines, *body]) + "\n"
        return family

    def root(self, prefix: str) -> Family:
        """A definition without parents."""
        random, (keys, clip, mix, limit, ends, table) = self.random, ROOTS[prefix]
        family = self.start(prefix, [])
        low, high = (f"{family.type.upper()}_{end}" for end in ends)
        family.constants = {n: Named(n, family) for n in (limit, low, high, "COUNTER")}
        body = [
            f"{limit} = {random.randint(1, 9)}",
            f"{low}, {high} = {random.randint(0, 3)}, {random.randint(4, 9)}",
            "COUNTER = 0",
        ]
        body += random.sample(
            [f"{limit}_TWICE = 2 * {limit}", f"{low}_1 = {low}_2 = {random.randint(0, 9)}", f"{limit}_DEPTH: int = 2"],
            1,
        )
        name = body[-1].partition(" ")[0].strip(":")
        family.constants[name] = Named(name, family)
        for function in (clip, f"{family.type}_{mix}"):
            family.functions[function] = Named(function, family, self.parameters())
            method = Method(function, 0, family.functions[function].parameters)
            body += ["", *self.function(self.scope(family, None, method), method)]
        if self.chance(0.5):
            family.functions["traced"] = Named("traced", family, (Parameter("function"),))
            body += TRACED.split("\n")
        if self.chance(0.3):
            family.constants[f"{prefix.upper()}_{table}"] = Named(f"{prefix.upper()}_{table}", family)
            words = arguments(Scope(random, 0, ["i"]), family.functions[clip].parameters, 0)
            body += [f"{prefix.upper()}_{table} = sum({clip}({words}) for i in range(2))", ""]
        body += self.configuration(family, None)
        for key in keys:
            if key in ("Part", "Unit") or self.chance(0.45):
                body += self.root_class(family, key, "Model" if key == "Head" and "Model" in family.classes else None)
        return self.finish(family, body)

    def root_class(self, family: Family, key: str, base: str | None) -> list[str]:
        random = self.random
        cls = Class(family.prefix + key, family, base)
        inherited = {kind: family.classes[base].has(kind, family) for kind in KINDS} if base else None
        lines = self.settings(family, cls)
        family.classes[key] = cls
        if base is None or self.chance(0.5):
            lines += self.constructor(family, cls, inherited, family.classes)
        lines += (
            []
            if base
            else [
                "def tick(self, value=1):",
                "    self.log.append(value)",
                "    self.count += 1",
                "    return value",
                "",
            ]
        )
        for rank, word in enumerate(random.sample(WORDS, random.randint(1, 3))):
            kind = random.choices(("method", "generator", "property", "class", "static"), (66, 9, 10, 8, 7))[0]
            parameters = () if kind == "property" else self.parameters()
            method = Method(f"{word}_{key.lower()}" if kind != "method" else word, rank, parameters, kind)
            lines += self.method(family, cls, method, inherited, setter=kind == "property" and self.chance(0.5))
            cls.layer["methods"][method.name] = method
        bases = f"({family.classes[base].name})" if base else ""
        return [f"class {cls.name}{bases}:", *(f"    {line}" if line else "" for line in lines), ""]

    def child(self, prefix: str, parents: list[Family]) -> Family:
        """A definition that inherits from others."""
        family = self.start(prefix, parents)
        return self.finish(family, self.heirs(family))

    def twins(self, prefix: str, parent: Family) -> Family:
        """A definition of two sub-families, each with its own members of one parent's family, and perhaps a class for both."""
        whole = self.start(prefix, [parent])
        whole.type = whole.file
        words = self.random.choice((("Text", "Vision"), ("Text", "TextVision"), ("Vision", "Text")))
        whole.twins = [
            Family(whole.file, f"{prefix}{word}", f"{prefix.lower()}_{word.lower()}", [parent], imports=whole.imports)
            for word in words
        ]
        body = [f"__families__ = {tuple(twin.prefix for twin in whole.twins)}", ""]
        for twin in whole.twins:
            body += self.heirs(twin)
        return self.finish(whole, body)

    def heirs(self, family: Family) -> list[str]:
        """The text of a family that inherits: what it overrides, its configuration and its classes."""
        random, parents = self.random, family.parents
        family.fields = dict(parents[0].fields)
        for parent in parents:
            for what in ("functions", "constants"):
                for key, member in getattr(parent, what).items():
                    name = derived(member.name, parent, family)
                    getattr(family, what).setdefault(key, Named(name, member.home, member.parameters))
            for key, cls in parent.classes.items():
                layer = {kind: dict(found) for kind, found in cls.layer.items()}
                layer["attributes"] = {family.type if a == parent.type else a: None for a in layer["attributes"]}
                family.classes.setdefault(key, Class(derived(cls.name, parent, family), cls.home, cls.base, layer))
            if "Unit" in parent.classes and parent.classes["Unit"] is parent.classes.get("Part"):
                family.classes["Unit"] = family.classes["Part"]
        body = self.overridden_functions(family)
        inheritable = [key for key, c in family.classes.items() if c.home in parents and key != "Config"]
        if family.classes.get("Unit") is family.classes["Part"] and "Unit" in inheritable:
            inheritable.remove("Unit")
        chosen = [key for key in inheritable if self.chance(0.65)]
        chosen += [
            random.choice(keys)
            for p in parents
            if not {*chosen} & {*(keys := [k for k in inheritable if k in p.classes])}
        ]
        bases = {key: [self.name_of(family, family.classes[key])] for key in chosen}
        base = family.imports.setdefault((parents[0].file, f"{parents[0].prefix}Config"), f"{parents[0].prefix}Config")
        body += self.configuration(family, base)
        if "Part" in chosen and "Unit" in chosen and self.chance(0.3):
            bases["Part"] += bases.pop("Unit")
        for key, names in bases.items():
            if all(names):
                body += self.child_class(family, key, names)
        return body

    def overridden_functions(self, family: Family) -> list[str]:
        """Constants and functions under the names that the parents' have here."""
        body: list[str] = []
        unique = (f"{family.type}_", f"{family.type.upper()}_") if family.neutral is None else ("",)
        together = self.chance(0.25)  # names that one statement binds: all or none, else it is refused
        for constant in family.constants.values():
            tied = constant.name.endswith(("_LOW", "_HIGH", "_NEAR", "_FAR", "_1", "_2"))
            if not constant.name.startswith(unique):
                continue
            if (together and self.chance(0.97)) if tied else self.chance(0.25):
                constant.home = family
                body.append(f"{constant.name} = {self.random.randint(0, 9)}")
        for key, function in family.functions.items():
            if function.name.startswith(unique) and self.chance(0.25):
                function.home = family
                if key == "traced":
                    body += TRACED.replace('"traced"', f'"{family.type} traced"').split("\n")
                else:
                    like = function.parameters
                    method = Method(function.name, 0, like if function.name in SAFE else self.parameters(like))
                    function.parameters = method.parameters
                    body += ["", *self.function(self.scope(family, None, method), method)]
        return body

    def child_class(self, family: Family, key: str, bases: list[str]) -> list[str]:
        random, old = self.random, family.classes[key]
        inherited = {kind: old.has(kind, family) for kind in KINDS}
        tables = set(old.layer["settings"])
        if len(bases) > 1:
            inherited = {kind: {**family.classes["Unit"].has(kind, family), **inherited[kind]} for kind in KINDS}
        old.layer = {
            kind: {**found, **(inherited[kind] if len(bases) > 1 else {})} for kind, found in old.layer.items()
        }
        cls = family.classes[key] = Class(
            f"{family.prefix}{random.choice(('', '', '', 'Special'))}{key}", family, old.base, old.layer
        )
        if len(bases) > 1:
            family.classes["Unit"] = cls
        lines = ['"""What differs."""'] if self.chance(0.2) else []
        for name, kind in inherited["settings"].items():
            if self.chance(0.25):
                table = {"tuple": f"(*{bases[0]}.{name}, 9)", "dict": f'{{**{bases[0]}.{name}, "b": 2}}'}
                plain = {"tuple": "(7,)", "dict": "{}", "int": str(random.randint(0, 9)), "str": f'"{family.type}"'}
                value = table.get(kind) if self.chance(0.5) and name in tables else plain.get(kind)
                lines += [f"{name} = {value}"] if value else []
        removable = [*(m for m in inherited["methods"] if m not in ("tick", "post_init")), *inherited["settings"]]
        taken = [line.partition(" ")[0] for line in lines]
        removable = [
            n for n in removable if (n in old.layer["methods"] or n in old.layer["settings"]) and n not in taken
        ]
        lines += [f"{random.choice(removable)} = removed"] if removable and self.chance(0.08) else []
        gone = lines[-1].removesuffix(" = removed") if lines and lines[-1].endswith("removed") else ""
        for kind in ("methods", "settings"):
            inherited[kind].pop(gone, None)
            cls.layer[kind].pop(gone, None)
        lines.append("")
        if self.chance(0.4):
            lines += self.constructor(family, cls, inherited, family.classes)
        fresh = [w for w in WORDS if w not in inherited["methods"] and w != gone]
        for method in list(inherited["methods"].values()):
            if method.name not in ("tick", "post_init") and self.chance(0.35):
                parameters = () if method.kind == "property" else self.parameters(method.parameters)
                own = Method(method.name, method.rank, parameters, method.kind)
                if method.kind == "method" and self.chance(0.15):
                    own, text = self.widened(family, cls, method, inherited)
                    lines += text
                else:
                    setter = method.kind == "property" and self.chance(0.2)
                    lines += self.method(family, cls, own, inherited, setter)
                cls.layer["methods"][own.name] = own
        if fresh and self.chance(0.5):
            own = Method(fresh[0], 5, self.parameters())
            lines += self.method(family, cls, own, inherited)
            cls.layer["methods"][own.name] = own
        lines = lines if any(lines) else ["pass"]
        return [f"class {cls.name}({', '.join(bases)}):", *(f"    {line}" if line else "" for line in lines), ""]

    def widened(
        self, family: Family, cls: Class, theirs: Method, inherited: dict[str, Any]
    ) -> tuple[Method, list[str]]:
        """An override with `**super_kwargs`: what a caller must know of it, and its text."""
        random, taken = self.random, {p.name: p for p in theirs.parameters}
        kept = [p for p in theirs.parameters if p.kind == "/" or self.chance(0.4)]
        spare = (
            [Parameter("spare", "2", random.choice(("", "*")))] if "spare" not in taken and self.chance(0.5) else []
        )
        own = (*kept, *spare) if not kept or kept[-1].kind != "*" else (*kept[:-1], *spare[:1], kept[-1])
        scope = self.scope(family, cls, Method(theirs.name, theirs.rank, own), inherited)
        if self.chance(0.9):  # a local that is named like a parameter that is not written here is refused
            hidden = taken.keys() - {p.name for p in kept}
            scope.pool = tuple(n for n in scope.pool if n not in hidden) or ("other",)
        lines = statements(scope, random.choice((0, 1, 1, 2)))
        values = [
            expression(scope, 1) for _ in kept
        ]  # when an argument that is only an attribute is read does not count
        values = [f"{value} + 0" if value.startswith("self.") else value for value in values]
        words = [v if p.kind == "/" else f"{p.name}={v}" for p, v in zip(kept, values, strict=True)]
        lines.append(f"return super().{theirs.name}({', '.join([*words, '**super_kwargs'])})")
        merged = [*theirs.parameters, *spare]
        merged.sort(key=lambda p: ("/", "", "*").index(p.kind))
        text = [f"def {theirs.name}({signature(own)}, **super_kwargs):", *(f"    {line}" for line in lines), ""]
        return Method(theirs.name, theirs.rank, tuple(merged)), text
