"""A process that compiles again and again says each time what a new one would say."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator import pipeline
from unibody.generator.pipeline import compile_project
from unibody.generator.project import find_project
from unibody.generator.session import Session

Make = Callable[[dict[str, str]], Workspace]
COUNT = 8


def definition(number: int, parent: int | None, size: str) -> str:
    """A model with a parent or none, which uses a core block and embeds nothing."""
    name = f"M{number}"
    if parent is None:
        return (
            f'from unibody.core.size import scale\n\n\nclass {name}Config:\n    model_type = "m{number}"\n\n\n'
            f'class {name}Layer:\n    size = {size}\n\n\nclass {name}Model:\n    auto_class = "AutoModel"\n'
            f"    layer = {name}Layer\n\n    def run(self):\n        return scale(self.layer.size)\n"
        )
    above = f"M{parent}"
    return (
        f"from .modular_m{parent} import {above}Config, {above}Model\n\n\n"
        f'class {name}Config({above}Config):\n    model_type = "m{number}"\n\n\n'
        f"class {name}Model({above}Model):\n    size = {size}\n"
    )


def change(project: Workspace, chance: random.Random) -> None:
    number = chance.randrange(COUNT)
    path = f"modular/modular_m{number}.py"
    kind = chance.choice(
        ["size", "size", "size", "parent", "undefined", "syntax", "away", "core", "broken core", "style", "cycle"]
    )
    parent = None if number == 0 else chance.randrange(number)
    if kind in ("size", "parent"):
        project.write(path, definition(number, parent if number > 1 else None, str(chance.randrange(100))))
    elif kind == "undefined":
        project.write(path, definition(number, parent, "nothing"))
    elif kind == "syntax":
        project.write(path, "class (:\n")
    elif kind == "away":
        (project.root / path).unlink(missing_ok=True)
    elif kind == "cycle":
        project.write(path, definition(number, COUNT - 1, "1"))
    elif kind == "core":
        project.write("blocks/size.py", f"def scale(x):\n    return x * {chance.randrange(100)}\n")
    elif kind == "broken core":
        project.write("blocks/size.py", "def scale(:\n")
    else:
        settings = f'[tool.unibody]\ncore = "blocks"\nline-length = {chance.choice([40, 119])}\n'
        project.write("pyproject.toml", settings)


@pytest.mark.slow
def test_like_a_new_process(workspace: Make) -> None:
    files = {f"m{i}": definition(i, i // 2 if i > 1 else None, "1") for i in range(COUNT)}
    core = {"blocks/__init__.py": "", "blocks/size.py": "def scale(x):\n    return x\n"}
    project = workspace({"pyproject.toml": '[tool.unibody]\ncore = "blocks"\n', **core, **files})
    chance = random.Random(0)
    session = Session()
    good = bad = 0
    for _ in range(80):
        kept = compile_project(find_project(project.root), session=session)
        new = compile_project(find_project(project.root))
        assert kept.outputs == new.outputs
        assert list(map(str, kept.diagnostics)) == list(map(str, new.diagnostics))
        assert kept.complete == new.complete
        good += kept.complete
        bad += not kept.complete
        if bad and not kept.complete and chance.random() < 0.4:  # back to a good state
            for name, text in files.items():
                project.write(f"modular/modular_{name}.py", text)
            project.write("blocks/size.py", core["blocks/size.py"])
        else:
            change(project, chance)
    assert good > 15
    assert bad > 15


def test_only_what_changed_goes_through_the_passes(workspace: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"m{i}": definition(i, i // 2 if i > 1 else None, "1") for i in range(COUNT)}
    core = {"blocks/__init__.py": "", "blocks/size.py": "def scale(x):\n    return x\n"}
    project = workspace({"pyproject.toml": '[tool.unibody]\ncore = "blocks"\n', **core, **files})
    done: list[str] = []
    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES, lambda unit: done.append(Path(unit.source.path).stem)))
    session = Session()

    def run() -> list[str]:
        done.clear()
        assert compile_project(find_project(project.root), session=session).complete
        return sorted(done)

    everything = sorted(f"modular_m{i}" for i in range(COUNT))
    assert run() == everything
    assert run() == []
    project.write("modular/modular_m3.py", definition(3, 1, "2"))
    assert run() == ["modular_m3", "modular_m6", "modular_m7"]
    project.write("blocks/size.py", "def scale(x):\n    return x + 1\n")
    assert run() == everything
