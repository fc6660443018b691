"""Random families mean in the compiler's output what they mean to the interpreter, or are refused with a diagnostic."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from meaning.calls import play, scenario
from meaning.definition import Library
from meaning.families import Family, Writer
from meaning.interpreter import interpret

from unibody.generator import pipeline
from unibody.generator.project import find_project

DEEP = "UNIBODY_DEEP" in os.environ
BATCH = 20  # families compiled together


@dataclass(frozen=True)
class Finding:
    """Where the two differ, and all that is needed to see why."""

    family: Family
    problem: str


def compiled(root: Path, families: list[Family]) -> Any:
    """What the compiler makes of a project of these definitions, without the formatter."""
    (root / "modular").mkdir()
    (root / "pyproject.toml").write_text("[tool.unibody]\n")
    for family in families:
        (root / f"modular/modular_{family.file}.py").write_text(family.text)
    return pipeline.compile_project(find_project(root))


def execute(name: str, text: str) -> dict[str, Any]:
    """The namespace of a generated file; its module stays known to dataclasses until it is executed."""
    module = types.ModuleType(f"generated {name}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module.__dict__


def attempt(make: Callable[[], dict[str, Any]]) -> dict[str, Any] | Exception:
    """The namespace that is made, or the exception that executing its statements raises."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 (the program's own)
        return error


def told(made: dict[str, Any] | Exception) -> str:
    return repr(made) if isinstance(made, Exception) else "without error"


def compare(root: Path, library: Library, family: Family, text: str, seed: int) -> str:
    """Where interpretation and output differ; "" if nowhere."""
    steps = scenario(family, random.Random(seed))
    meant = attempt(lambda: interpret(root, f"modular/modular_{family.file}.py", library))
    found = attempt(lambda: execute(family.file, text))
    if isinstance(meant, Exception) or isinstance(found, Exception):
        return "" if type(meant) is type(found) else f"interpreted {told(meant)}, compiled {told(found)}"
    names = {name for name, value in found.items() if getattr(value, "__module__", "").startswith("generated")}
    if strange := names - meant.keys():
        return f"the output has {strange}, which the family has not"
    steps = present(steps, found)
    for ours, theirs in zip(play(steps, meant), play(steps, found), strict=True):
        if ours != theirs:
            return f"interpreted  {ours}\ncompiled     {theirs}"
    return ""


def present(steps: list[tuple[Any, ...]], namespace: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The steps without those about members that the output does not need."""
    kept, made = [], False
    for step in steps:
        if step[0] == "make":
            made = step[1] in namespace
        named = step[1] in namespace if step[0] in ("look", "run", "read", "ask") else made
        kept += [step] if named else []
    return kept


def examine(numbers: range) -> tuple[Counter[str], list[Finding]]:
    """How many definitions were equal or refused (by code), and those that differ."""
    written = {number: Writer(random.Random(number), number).write() for number in numbers}
    try:
        return judge(written)
    except Exception as error:
        if len(written) > 1:
            parts = [examine(range(number, number + 1)) for number in written]
            return sum((counts for counts, _ in parts), Counter()), [f for _, findings in parts for f in findings]
        last = error.__traceback__
        while last.tb_next:
            last = last.tb_next
        return Counter(), [
            Finding(written[numbers[0]][-1], f"crash: {error!r} {last.tb_frame.f_code.co_name} {last.tb_lineno}")
        ]


def judge(written: dict[int, list[Family]]) -> tuple[Counter[str], list[Finding]]:
    counts: Counter[str] = Counter()
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = compiled(root, [family for families in written.values() for family in families])
        codes = {
            Path(diagnostic.path).stem.removeprefix("modular_"): diagnostic.code for diagnostic in result.diagnostics
        }
        library = Library(root)
        for number, families in written.items():
            for family in families:
                text = result.outputs.get(f"generated/modeling_{family.file}.py")
                if text is None:
                    counts[codes.get(family.file, "parent refused")] += 1
                elif problem := compare(root, library, family, text, number):
                    findings.append(Finding(family, problem))
                else:
                    counts["equal"] += 1
    return counts, findings
