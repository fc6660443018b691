"""Random families mean in the compiler's output what they mean to the interpreter, or are refused with a diagnostic.

A case is a definition with parents: interpreted, compiled, and both put through the same random calls. 2,000 cases by
default, 20,000 if UNIBODY_DEEP is set. The families' numbers are their seeds: `pytest -k 140` runs those of one test again.
"""

from __future__ import annotations

import gc
import os
import random
import re
import sys
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from meaning.calls import TOO_LONG, play, scenario
from meaning.definition import Library
from meaning.families import Writer
from meaning.interpreter import interpret
from meaning.members import Family
from meaning.reduction import reduce_texts
from meaning.unformatted import compile_definitions

BATCH = 35  # families that are compiled together
BATCHES = 215 if "UNIBODY_DEEP" in os.environ else 22
CASES = 80  # at least, in each batch
REFUSED = 0.15  # at most


def compiled(root: Path, texts: dict[str, str]) -> Any:
    """What the compiler makes of a project of these definitions, without the formatter."""
    (root / "modular").mkdir()
    (root / "pyproject.toml").write_text("[tool.unibody]\n")
    for name, text in texts.items():
        (root / f"modular/modular_{name}.py").write_text(text)
    return compile_definitions(root)


def execute(name: str, text: str) -> dict[str, Any]:
    """The namespace of a generated file; its module is known to dataclasses while it is executed."""
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


def present(steps: list[tuple[Any, ...]], namespace: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The steps without those about members that the output does not need."""
    kept, made = [], False
    for step in steps:
        if step[0] == "make":
            made = step[1] in namespace
        named = step[1] in namespace if step[0] in ("look", "run", "read", "ask") else made
        kept += [step] if named else []
    return kept


def difference(root: Path, library: Library, name: str, text: str, steps: list[tuple[Any, ...]]) -> str:
    """Where interpretation and output differ; "" if nowhere."""
    meant = attempt(lambda: interpret(root, f"modular/modular_{name}.py", library))
    found = attempt(lambda: execute(name, text))
    if isinstance(meant, Exception) or isinstance(found, Exception):
        told = [repr(each) if isinstance(each, Exception) else "no error" for each in (meant, found)]
        return (
            ""
            if type(meant) is type(found)
            else f"importing, interpreted: {told[0]}\nimporting, compiled:    {told[1]}"
        )
    made = {key for key, value in found.items() if getattr(value, "__module__", "").startswith("generated")}
    if strange := made - meant.keys():
        return f"the output has {strange}, which the family has not"
    steps = present(steps, found)
    for ours, theirs in zip(play(steps, meant), play(steps, found), strict=False):
        if TOO_LONG in (ours, theirs):
            break
        if ours != theirs:
            return f"interpreted: {ours}\ncompiled:    {theirs}"
    return ""


def judge(texts: dict[str, str], wanted: list[str], steps: dict[str, Any]) -> tuple[Counter[str], dict[str, str]]:
    """How many definitions were equal or refused (by code), and what is wrong with the others."""
    counts, problems = Counter[str](), {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = compiled(root, texts)
        codes = {Path(found.path).stem.removeprefix("modular_"): found.code for found in result.diagnostics}
        library = Library(root)
        for name in wanted:
            output = result.outputs.get(f"generated/modeling_{name}.py")
            if output is None:
                counts[codes.get(name, "because of a parent")] += 1
            elif problem := difference(root, library, name, output, steps[name]):
                problems[name] = f"{problem}\n=== compiled\n{output}"
            else:
                counts["equal"] += 1
    return counts, problems


def lineage(family: Family) -> dict[str, str]:
    """The texts of a definition and of all that it inherits from."""
    found = {name: text for parent in family.parents for name, text in lineage(parent).items()}
    return {**found, family.file: family.text}


def kind(problem: str) -> tuple[str, list[str]]:
    """What two problems have in common if one is the other made small: the step's verb, and the exceptions."""
    told = problem.partition("\n=== ")[0]
    return told[:20], re.findall(r"\w+Error", told)


def report(family: Family, number: int, problem: str) -> str:
    """The failing case as it is, and made small."""
    steps = {family.file: scenario(family, random.Random(number))}

    def fails(texts: dict[str, str]) -> bool:
        try:
            return kind(judge(texts, [family.file], steps)[1].get(family.file, "")) == kind(problem)
        except Exception as error:  # noqa: BLE001 (a crash of the compiler)
            return kind(f"crash: {error!r}") == kind(problem)

    small = reduce_texts(lineage(family), fails)
    return "\n".join(
        [f"\n##### {family.file} (seed {number})\n{problem}"]
        + [f"=== modular_{name}.py\n{text}" for name, text in lineage(family).items()]
        + [f"=== made small: modular_{name}.py\n{text}" for name, text in small.items()]
    )


@pytest.mark.parametrize("first", range(0, BATCH * BATCHES, BATCH))
def test_compiled_families_mean_what_they_mean(first: int) -> None:
    written = {n: Writer(random.Random(n), n).write() for n in range(first, first + BATCH)}
    families = {family.file: (n, family) for n, every in written.items() for family in every}
    texts = {name: family.text for name, (_, family) in families.items()}
    steps = {name: scenario(family, random.Random(n)) for name, (n, family) in families.items()}
    cases = [name for name, (_, family) in families.items() if family.parents]
    gc.collect()
    gc.disable()  # many syntax trees that live long
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            counts, problems = crash_free(texts, cases, steps, families)
            told = [report(families[name][1], families[name][0], found) for name, found in list(problems.items())[:2]]
    finally:
        gc.enable()
    print(f"seeds {first} to {first + BATCH - 1}: {dict(counts)}")
    assert not problems, f"{len(problems)} differ, {list(problems)}:" + "".join(told)
    assert counts.total() >= CASES
    assert 1 - counts["equal"] / counts.total() <= REFUSED, counts


def crash_free(
    texts: dict[str, str], cases: list[str], steps: dict[str, Any], families: dict[str, tuple[int, Family]]
) -> tuple[Counter[str], dict[str, str]]:
    """What judge says; where the compiler crashes, of each lineage alone, so that the culprit is known."""
    try:
        return judge(texts, cases, steps)
    except Exception:  # noqa: BLE001 (a crash of the compiler, found below)
        counts, problems = Counter[str](), {}
        for name in cases:
            try:
                more, found = judge(lineage(families[name][1]), [name], steps)
                counts, problems = counts + more, problems | found
            except Exception as error:  # noqa: BLE001
                problems[name] = f"crash: {error!r}"
        assert problems, "the compiler crashed on these families together, on none of them alone"
        return counts, problems
