"""A function as the JSON schema of a tool: its types, and what its docstring says of it, its arguments and what it returns."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NAMES = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    list: "array",
    dict: "object",
    tuple: "array",
}
SECTION = re.compile(r"^[ \t]*(Args|Arguments|Parameters|Returns|Raises|Examples?|Yields):[ \t]*$", re.MULTILINE)
CHOICES = re.compile(r"\s*\(choices:\s*(.*?)\)\s*$", re.IGNORECASE | re.DOTALL)


def describe_tool(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema. ValueError: an argument has no type, or the docstring lacks it; there is no docstring.

    The docstring has a summary and, below `Args:`, a line `name: what it is` for each argument.
    """
    name = getattr(function, "__name__", repr(function))
    text = inspect.getdoc(function)
    if not text:
        raise ValueError(f"{name} has no docstring, which is what tells the model when to use it")
    parts = SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    described = arguments(sections.get("Args") or sections.get("Arguments") or sections.get("Parameters") or "")
    hints, properties, required = get_type_hints(function), {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        if argument not in hints:
            raise ValueError(f"argument {argument} of {name} has no type: write for example `{argument}: str`")
        if argument not in described:
            raise ValueError(
                f"the docstring of {name} does not describe {argument}: add `{argument}: …` below `Args:`"
            )
        properties[argument] = {**schema(hints[argument]), **description(described[argument])}
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    found: dict[str, Any] = {"name": name, "description": parts[0].strip()}
    found["parameters"] = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    if "return" in hints:
        about = " ".join(sections.get("Returns", "").split())
        found["return"] = {**schema(hints["return"]), **({"description": about} if about else {})}
    return {"type": "function", "function": found}


def arguments(section: str) -> dict[str, str]:
    """What a section of a docstring says of each argument, as one line."""
    found: dict[str, list[str]] = {}
    lines = inspect.cleandoc(section).splitlines()
    for line in lines:
        match = re.match(r"(\*{0,2}\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)
        if match:
            found[match[1]] = [match[2]]
        elif found and line.strip():
            next(reversed(found.values())).append(line.strip())
    return {name: " ".join(said).strip() for name, said in found.items()}


def description(said: str) -> dict[str, Any]:
    choices = CHOICES.search(said)
    if not choices:
        return {"description": said}
    return {"enum": json.loads(choices[1]), "description": said[: choices.start()].strip()}


def schema(hint: Any) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return union([one for one in inner if one is not NoneType], NoneType in inner)
    if origin is Literal:
        kinds = {NAMES.get(type(value), "string") for value in inner}
        return {"type": kinds.pop() if len(kinds) == 1 else sorted(kinds), "enum": list(inner)}
    if origin is list and inner:
        return {"type": "array", "items": schema(inner[0])}
    if origin is tuple and inner:
        return {"type": "array", "prefixItems": [schema(one) for one in inner]}
    if origin is dict and inner:
        return {"type": "object", "additionalProperties": schema(inner[1])}
    if hint in (Any, inspect.Parameter.empty):
        return {}
    return {"type": NAMES.get(hint, "object")}


def union(kinds: list[Any], nullable: bool) -> dict[str, Any]:
    found = [schema(kind) for kind in kinds]
    if len(found) == 1:
        made = found[0]
    elif all(list(one) == ["type"] and isinstance(one["type"], str) for one in found):
        made = {"type": sorted(one["type"] for one in found)}
    else:
        made = {"anyOf": found}
    return {**made, **({"nullable": True} if nullable else {})}
