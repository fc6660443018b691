"""Random calls of what a family defines, and what comes of them, told so that two implementations can be compared."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import signal
from collections.abc import Iterator
from random import Random
from typing import Any

from meaning.members import Family


def scenario(family: Family, random: Random) -> list[tuple[Any, ...]]:
    """What to do with the family: each step is a verb and what it needs."""
    if family.twins:
        return [step for twin in family.twins for step in scenario(twin, random)]
    steps: list[tuple[Any, ...]] = [("look", cls.name) for cls in family.classes.values() if cls.home is family]
    steps += [
        ("make", f"{family.prefix}Config", {n: random.randint(0, 4) for n in family.fields if random.random() < 0.3})
    ]
    steps += [("get", "half"), ("set", "half", 3), ("state",)]
    for key, cls in family.classes.items():
        if key == "Config":
            continue
        parameters = cls.has("init", family).get("init", ())
        steps.append(("make", cls.name, {p.name: random.randint(0, 5) for p in parameters if random.random() < 0.5}))
        methods = cls.has("methods", family)
        for method in random.sample(list(methods.values()), len(methods)) * 2:
            given = [p for p in method.parameters if p.default is None or random.random() < 0.5]
            positional = [random.randint(-2, 6) for p in given if p.kind == "/"]
            keywords = {p.name: random.randint(-2, 6) for p in given if p.kind != "/"}
            if method.kind == "property":
                steps += [("get", method.name), ("set", method.name, random.randint(0, 5))]
            else:
                steps.append(("call", method.name, positional, keywords))
            if method.kind in ("class", "static"):
                steps.append(("ask", cls.name, method.name, positional, keywords))
        steps.append(("state",))
    for function in family.functions.values():
        given = {p.name: random.randint(-2, 6) for p in function.parameters if p.kind != "/"}
        steps.append(("run", function.name, [1 for p in function.parameters if p.kind == "/"], given))
    steps += [("read", constant.name) for constant in family.constants.values()]
    return steps


TOO_LONG = "too long to wait for"
PATIENCE = 2.0  # CPU seconds for a step: a program made at random may run for days


class TooLongError(BaseException):
    """The program has used up its time; nothing in it may catch this."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Ends what runs inside after its time."""

    def give_up(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def play(steps: list[tuple[Any, ...]], namespace: dict[str, Any]) -> list[str]:
    """What each step gives: its value or the exception's type, and what it logs. One that takes too long is the last."""
    told: list[str] = []
    try:
        _play(steps, namespace, told)
    except TooLongError:
        told.append(TOO_LONG)
    return told


def _play(steps: list[tuple[Any, ...]], namespace: dict[str, Any], told: list[str]) -> None:
    current: Any = None
    config: Any = None
    log: list[Any] = []
    for verb, *rest in steps:
        seen = len(log)
        timer = contextlib.ExitStack()
        try:
            timer.enter_context(patience())
            match verb:
                case "look":
                    value = look(namespace[rest[0]])
                case "make":
                    if rest[0].endswith("Config"):
                        value = current = config = namespace[rest[0]](**rest[1])
                    else:
                        value, current, log, seen = None, None, [], 0
                        current = namespace[rest[0]](config, log, **rest[1])
                case "get":
                    value = getattr(current, rest[0])
                case "set":
                    value = setattr(current, rest[0], rest[1])
                case "call":
                    value = getattr(current, rest[0])(*rest[1], **rest[2])
                    value = list(value) if inspect.isgenerator(value) else value
                case "ask":
                    value = getattr(namespace[rest[0]], rest[1])(*rest[2], **rest[3])
                case "state":
                    value = current
                case "run":
                    value = namespace[rest[0]](*rest[1], **rest[2])
                case "read":
                    value = namespace[rest[0]]
            result = repr(plain(value))
        except RecursionError:  # how deep it gets is no part of the meaning
            raise TooLongError from None
        except Exception as error:  # noqa: BLE001 (whatever the program raises is its outcome)
            result = type(error).__name__
        finally:
            timer.close()
        told.append(f"{verb} {rest}: {result} {plain(log[seen:])}")


def look(cls: type) -> dict[str, Any]:
    """What a class offers: public names, with the parameters of functions, and the fields of dataclasses in order."""
    found: dict[str, Any] = {}
    for name in dir(cls):
        if (not name.startswith("_") and hasattr(cls, name)) or name == "__init__":
            value = inspect.getattr_static(cls, name)
            if type(value).__name__ == "Removed":  # what it stands for
                value = getattr(cls, name)
                value = getattr(value, "__func__", value)
            found[name] = plain(value)
            if inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)):
                function = value if inspect.isfunction(value) else value.__func__
                found[name] = [
                    (p.name, str(p.kind), plain(p.default)) for p in inspect.signature(function).parameters.values()
                ]
    if dataclasses.is_dataclass(cls):
        found["fields"] = [(f.name, plain(f.default), f.kw_only) for f in dataclasses.fields(cls)]
    return found


def plain(value: Any, depth: int = 6) -> Any:
    """A value told without addresses, modules and private attributes."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {value.bit_length()} bits, {value % (2**61 - 1)}"
    if isinstance(value, (int, str, float, type(None))):
        return value
    if isinstance(value, type):
        return f"class {value.__name__}"
    if isinstance(value, dict):
        return {plain(k): plain(v, depth) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(plain(item, depth) for item in value)
    if isinstance(value, property):
        return f"property {value.fset is not None} {value.fdel is not None}"
    kind = type(value).__name__
    if depth and hasattr(value, "__dict__") and not callable(value):
        with contextlib.suppress(RecursionError):
            return kind, {
                name: plain(item, depth - 1) for name, item in sorted(vars(value).items()) if not name.startswith("_")
            }
    return kind
