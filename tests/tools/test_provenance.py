"""Every line of every generated file has an origin, and the words of the line stand there, the renamed ones under their old names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator.pipeline import Result, compile_project
from unibody.generator.project import Project, find_project
from unibody.generator.text import Origin
from unibody.generator.tools.provenance import Line, lineage, trace_output
from unibody.generator.unit import Unit

Make = Callable[[dict[str, str]], Workspace]
ROOT = Path(__file__).parents[2]


class Zoo:
    """The repository's own definitions, compiled and traced."""

    def __init__(self) -> None:
        self.project: Project = find_project(ROOT)
        self.result: Result = compile_project(self.project)
        assert not self.result.diagnostics
        self.lines = {path: trace_output(self.project, self.result, path) for path in self.result.outputs}

    def rows(self, path: str) -> list[tuple[str, Line]]:
        return list(zip(self.result.outputs[path].split("\n"), self.lines[path], strict=True))

    def source(self, origin: Origin) -> str:
        """The line that an origin names, read from the disk."""
        return (ROOT / origin.path).read_text(encoding="utf-8").split("\n")[origin.line - 1]


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo()


def former_names(units: dict[str, Unit], unit: Unit, space: str, name: str) -> set[str]:
    """The name and all that it, or the model type that it is, is called in the families above, or in core as a role."""
    found = {name, *(role.name for role in unit.filled.get(name, ()))}
    pending = [(space, name)]
    for here, word in pending:
        family = units.get(here)
        for branch, roles in family.roles.items() if family else ():
            assert family is not None
            above = [old for old, new in roles.items() if new == word]
            if word in (family.family.model_type, *family.family.types.values()):
                above.append(units[branch.parent].family.model_type)
            pending += [(branch.parent, old) for old in above if old not in found]
            found |= set(above)
    return found


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_every_line_has_an_origin(zoo: Zoo) -> None:
    for path in zoo.result.outputs:
        for row, line in zoo.rows(path):
            assert line.origins, (path, row)
            for origin in line.origins:
                zoo.source(origin)  # there is such a line
            kinds = {"definition": "modular/", "core": "unibody/core/", "template": "templates/", "import": ""}
            assert line.origins[0].path.startswith(kinds[line.kind]), (path, row, line)


def test_the_words_of_a_line_stand_at_its_origin(zoo: Zoo) -> None:
    seen = Counter[str]()
    made = {unit.source.output: unit for unit in zoo.result.units.values()}
    for path in zoo.result.outputs:
        for row, line in zoo.rows(path):
            there = {word for origin in line.origins for word in words(zoo.source(origin))}
            if line.kind in ("definition", "core") and "templates" not in line.origins[-1].path:
                here = words(row)
                lost = {w for w in here if not former_names(zoo.result.units, made[path], line.space, w) & there}
                if "template" in there:  # a row of a kernel table, which now names the template's function
                    above = [
                        Origin(origin.path, origin.line - 1) for origin in line.origins
                    ]  # where a long row begins
                    names = there | {word for origin in above for word in words(zoo.source(origin))}
                    lost -= {"entry", *(f"{word}_matmul" for word in names)}
                assert not lost, (path, row, line)
                seen[line.kind] += bool(here)
            elif line.kind == "import" and row.strip():
                names = words(row.partition("import ")[2])
                assert names <= there, (path, row, line)
                seen["import"] += 1
            elif line.kind == "template":
                assert words(row) <= there or "{{" in zoo.source(line.origins[0]), (path, row, line)
    assert seen["definition"] > 500
    assert seen["core"] > 500
    assert seen["import"] > 20


def test_tables_lead_to_what_they_list(zoo: Zoo) -> None:
    """Lines of `__all__`, of the registry and of the stub have the class or function that they name as their origin."""
    for path in zoo.result.outputs:
        for row, line in zoo.rows(path):
            listed = re.fullmatch(r'    "(\w+)",|        "config": "(\w+)",|            "Auto\w+": "(\w+)",', row)
            if listed and not line.name.startswith("_"):
                name = next(filter(None, listed.groups()))
                if any(name in unit.parts for unit in zoo.result.units.values()):
                    assert line.name == name, (path, row)
                    assert re.match(rf"(class|def) {name}\(", zoo.source(line.origins[0])), (path, row)


def test_lineage(zoo: Zoo) -> None:
    path = "generated/models/modeling_mistral.py"
    row, line = next((row, line) for row, line in zoo.rows(path) if "self.q_proj = " in row)
    (origin,) = line.origins
    assert zoo.source(origin) == row
    assert lineage(zoo.result.units, line.space, line.name, origin) == [
        ("modular/models/modular_mistral.py", "MistralAttention"),
        ("modular/models/modular_llama.py", "LlamaAttention"),
    ]


BASE = '''
class BaseLayer:
    """A layer."""

    def __init__(self, size, bias=True):
        self.size = size
        self.bias = bias

    def forward(
        self,
        x,  # [B, H]
        y,
    ):
        return f'{x!r}' "joined" 'with this', y, 0XFF, 1E5
'''
CHILD = '''
from .modular_base import BaseLayer


class ChildLayer(BaseLayer):
    def __init__(self, width):
        super().__init__(width, bias=False)
        self.scale = (width +
            1)
        self.text = """three

        lines"""
'''


TRACED = '''
c4 b1 |class ChildLayer:
b2    |    """A layer."""
b2    |
c5    |    def __init__(self, width):
b5 c6 |        self.size = width
b6 c6 |        self.bias = False
c7 c8 |        self.scale = width + 1
c9    |        self.text = """three
c10   |
c11   |        lines"""
c11   |
b8    |    def forward(
b9    |        self,
b10   |        x,  # [B, H]
b11   |        y,
b12   |    ):
b13   |        return f"{x!r}joinedwith this", y, 0xFF, 1e5
'''


def test_spliced_joined_and_reformatted_lines(workspace: Make) -> None:
    """Each line is named with the line of the child (c) or of the base (b) that it is made from."""
    project = workspace({"base": BASE.lstrip(), "child": CHILD.lstrip()})
    result, path = project.compile(), "generated/modeling_child.py"
    rows = result.outputs[path].split("\n")
    lines = trace_output(find_project(project.root), result, path)
    start = rows.index("class ChildLayer:")
    found = [
        f"{' '.join(f'{origin.path[16]}{origin.line}' for origin in line.origins):6}|{row}"
        for row, line in zip(rows[start:-6], lines[start:-6], strict=True)
    ]
    assert "\n".join(found) == TRACED.strip("\n")


def test_embedded_and_derived_parents(workspace: Make) -> None:
    """Three levels: the line is the grandparent's, and came through a class that nobody wrote."""
    files = {
        "a": "class AConfig:\n    norm = 'ANorm'\n\n\nclass ANorm:\n    eps = 1\n\n\nclass ALayer:\n    norm = ANorm\n",
        "b": "from .modular_a import AConfig, ALayer\n\n\nclass BConfig(AConfig):\n    pass\n\n\nclass BLayer(ALayer):\n    pass\n",
        "c": "from .modular_b import BConfig, BLayer\n\n\nclass CConfig(BConfig):\n    pass\n\n\nclass CLayer(BLayer):\n    pass\n",
    }
    project = workspace(files)
    result, path = project.compile(), "generated/modeling_c.py"
    lines = trace_output(find_project(project.root), result, path)
    line = lines[result.outputs[path].split("\n").index("    eps = 1")]
    assert line.origins == (("modular/modular_a.py", 6),)
    assert [name for _, name in lineage(result.units, line.space, line.name, line.origins[0])] == [
        "CNorm", "BNorm", "ANorm",
    ]  # fmt: skip


def test_an_assigned_super_call(workspace: Make) -> None:
    """The name is the child's, the value its parent's."""
    files = {
        "a": "class ALayer:\n    def run(self, x):\n        y = x + 1\n        return 2 * y\n",
        "b": "from .modular_a import ALayer\n\n\nclass BLayer(ALayer):\n    def run(self, x):\n"
        "        out = super().run(x)\n        return out\n",
    }
    project = workspace(files)
    result, path = project.compile(), "generated/modeling_b.py"
    lines = trace_output(find_project(project.root), result, path)
    line = lines[result.outputs[path].split("\n").index("        out = 2 * y")]
    assert line.origins == (("modular/modular_b.py", 6), ("modular/modular_a.py", 4))


def test_a_folded_table(workspace: Make) -> None:
    """Each row is named with the line on which it was written, the parent's with the parent's."""
    files = {
        "a": "class ALayer:\n    rows = (\n        'one',\n        (\n            'two',\n            1,\n        ),\n    )\n    few = ('few',)\n",
        "b": "from .modular_a import ALayer\n\n\nclass BLayer(ALayer):\n    rows = (\n        'first',\n        *ALayer.rows,\n"
        "        'last',\n    )\n    few = ('own', *ALayer.few)\n",
    }
    project = workspace(files)
    result, path = project.compile(), "generated/modeling_b.py"
    rows = result.outputs[path].split("\n")
    lines = trace_output(find_project(project.root), result, path)
    found = {row.strip(): [(o.path[16], o.line) for o in line.origins] for row, line in zip(rows, lines, strict=True)}
    assert found['"first",'] == [("b", 6)]
    assert found['"one",'] == [("a", 3)]
    assert found['"two",'] == [("a", 5)]
    assert found["1,"] == [("a", 6)]
    assert found['"last",'] == [("b", 8)]
    assert found['few = ("own", "few")'] == [("b", 10), ("a", 9)]
