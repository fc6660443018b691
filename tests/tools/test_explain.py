"""`unibody explain FILE:LINE`: both source lines, what is in between, and what is said when there is no such line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import Done, unibody

Make = Callable[[dict[str, str]], Workspace]
BASE = """\
class BaseConfig:
    model_type = "base"


class BaseLayer:
    def run(self):
        return 1


class BaseModel:
    auto_class = "AutoModel"

    def __init__(self):
        self.layer = BaseLayer()
"""
CHILD = '''\
"""A child."""

from math import pi

from .modular_base import BaseConfig, BaseModel


class ChildConfig(BaseConfig):
    model_type = "child"
    turn = pi


class ChildModel(BaseModel):
    pass
'''
OUTPUT = "generated/modeling_child.py"


@pytest.fixture
def project(workspace: Make) -> Workspace:
    made = workspace({"base": BASE, "child": CHILD})
    assert unibody("generate", cwd=made.root).status == 0
    return made


def explain(project: Workspace, row: str, path: str = OUTPUT) -> Done:
    rows = (project.root / path).read_text().split("\n")
    return unibody("explain", f"{path}:{rows.index(row) + 1}", cwd=project.root)


def test_derived_class(project: Workspace) -> None:
    assert explain(project, "        return 1") == (
        0,
        "generated/modeling_child.py:18: ChildLayer.run\n"
        "   |\n"
        "18 |         return 1\n"
        "   |\n"
        "definition: modular/modular_base.py:7: BaseLayer.run\n"
        "  |\n"
        "7 |         return 1\n"
        "  |\n"
        "  = through: ChildLayer (modular/modular_child.py) <- BaseLayer (modular/modular_base.py)\n",
        "",
    )


def test_own_line(project: Workspace) -> None:
    assert explain(project, "    turn = pi").out == (
        "generated/modeling_child.py:13: ChildConfig\n"
        "   |\n"
        "13 |     turn = pi\n"
        "   |\n"
        "definition: modular/modular_child.py:10: ChildConfig\n"
        "   |\n"
        "10 |     turn = pi\n"
        "   |\n"
    )


def test_header_of_a_merged_class(project: Workspace) -> None:
    done = explain(project, "class ChildModel:")
    origins = [line for line in done.out.splitlines() if line.startswith(("definition", "and"))]
    assert origins == [
        "definition: modular/modular_child.py:13: ChildModel",
        "and: modular/modular_base.py:10: BaseModel",
    ]


def test_import_and_template(project: Workspace) -> None:
    assert "import: modular/modular_child.py:3\n" in explain(project, "from math import pi").out
    done = explain(project, "from __future__ import annotations")
    assert "template: templates/module.py.j2:6\n" in done.out
    assert "6 | from __future__ import annotations\n" in done.out


def test_registry(project: Workspace) -> None:
    done = explain(project, '            "AutoModel": "ChildModel",', "generated/registry.py")
    assert "definition: modular/modular_child.py:13: ChildModel\n" in done.out
    assert "and: templates/registry.py.j2:38\n" in done.out


def test_core(workspace: Make) -> None:
    text = "from unibody.core.hub import locate_checkpoint\n\n\nclass BaseModel:\n    find = locate_checkpoint\n"
    project = workspace({"base": text})
    assert unibody("generate", cwd=project.root).status == 0
    path = "generated/modeling_base.py"
    row = next(r for r in (project.root / path).read_text().split("\n") if r.startswith("def locate_checkpoint"))
    done = explain(project, row, path)
    assert "core block: unibody/core/hub.py:" in done.out
    assert done.out.count(row) == 2


def test_from_another_folder(project: Workspace) -> None:
    place = f"{project.root / OUTPUT}:18"
    done = unibody("explain", place, "--project", str(project.root), cwd=Path("/"))
    assert done.out.startswith("generated/modeling_child.py:18: ChildLayer.run\n")


def test_edited_file(project: Workspace) -> None:
    """Lines that still agree are explained where they are now; a line that no definition makes is said to be one."""
    file = project.root / OUTPUT
    file.write_text(file.read_text().replace("    turn = pi\n", "    turn = pi\n    mine = 1\n"))
    done = explain(project, "        return 1")
    assert (done.status, done.out.split("\n")[0]) == (0, "generated/modeling_child.py:19: ChildLayer.run")
    assert done.err == (
        "generated/modeling_child.py differs from what its definition compiles to: it was edited, or its sources changed\n"
    )
    done = explain(project, "    mine = 1")
    assert done.status == 1
    assert done.out == (
        "generated/modeling_child.py:14: no definition makes this line; `unibody diff child` shows what does not agree\n"
        "   |\n"
        "14 |     mine = 1\n"
        "   |\n"
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("generated/modeling_child.py", "`generated/modeling_child.py` is not a place in a file"),
        ("generated/modeling_child.py:0", "`generated/modeling_child.py:0` is not a place in a file"),
        ("generated/modeling_child.py:99", "`generated/modeling_child.py` has 31 lines"),
        ("generated/modeling_chlid.py:1", "no definition makes `generated/modeling_chlid.py`"),
    ],
)
def test_wrong_place(project: Workspace, place: str, message: str) -> None:
    done = unibody("explain", place, cwd=project.root)
    assert (done.status, done.out) == (2, "")
    assert f"error[UB026]: {message}\n" in done.err


def test_broken_definition(project: Workspace) -> None:
    project.write("modular/modular_child.py", "class ChildModel(:\n")
    done = unibody("explain", f"{OUTPUT}:1", cwd=project.root)
    assert (done.status, done.out) == (2, "")
    assert "error[UB001]" in done.err


def test_example_of_the_documentation(root: Path) -> None:
    """What docs/tools.md shows is what the command prints, but for the numbers of the lines."""
    shown = (root / "docs/tools.md").read_text().partition("$ unibody explain ")[2].partition("```")[0]
    rows = (root / "generated/models/modeling_mistral.py").read_text().split("\n")
    number = next(n for n, row in enumerate(rows, start=1) if row.strip().startswith("self.q_proj = "))
    done = unibody("explain", f"generated/models/modeling_mistral.py:{number}", cwd=root)
    assert without_numbers(done.out) == without_numbers(shown.partition("\n")[2])


def without_numbers(text: str) -> list[str]:
    return [re.sub(r"^ *\d* \||:\d+", "#", row) for row in text.strip().split("\n")]
