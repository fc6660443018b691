"""`unibody graph`: the family tree in three languages."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

from unibody.generator.tools.family_tree import Arrow, Box, Tree
from unibody.generator.tools.svg import draw

Make = Callable[[dict[str, str]], Workspace]
SVG = "{http://www.w3.org/2000/svg}"
FILES = {
    "a": "class AConfig:\n    size = 1\n\n\nclass ANorm:\n    eps = 1\n\n\nclass AModel:\n    norm = ANorm\n",
    "b": "from .modular_a import AConfig, AModel\n\n\nclass BConfig(AConfig):\n    pass\n\n\nclass BModel(AModel):\n    pass\n",
    "c": "from .modular_a import AModel\n\n\nclass CModel:\n    inner = AModel\n",
    "d": "class DModel:\n    size = 1\n",
}


def test_mermaid(workspace: Make) -> None:
    project = workspace(FILES)
    assert unibody("graph", cwd=project.root) == (
        0,
        'flowchart RL\n  a["a"]\n  b["b"]\n  c["c"]\n  d["d"]\n  b --> a\n  c -.-> a\n',
        "",
    )


def test_names_bring_ancestors_and_descendants(workspace: Make) -> None:
    project = workspace(FILES)
    assert unibody("graph", "b", cwd=project.root).out == 'flowchart RL\n  a["a"]\n  b["b"]\n  b --> a\n'
    assert '  c["c"]\n' in unibody("graph", "a", cwd=project.root).out
    assert unibody("graph", "d", cwd=project.root).out == 'flowchart RL\n  d["d"]\n'
    done = unibody("graph", "gone", cwd=project.root)
    assert (done.status, done.out) == (2, "")
    assert "error[UB023]" in done.err


def test_classes(workspace: Make) -> None:
    project = workspace(FILES)
    assert unibody("graph", "b", "--classes", "--format", "dot", cwd=project.root).out == (
        "digraph unibody {\n"
        "  rankdir=RL\n"
        '  node [shape=box, style=rounded, fontname="sans-serif"]\n'
        "  subgraph cluster_a {\n"
        '    label="a"\n'
        '    a__AConfig [label="AConfig"]\n'
        '    a__ANorm [label="ANorm"]\n'
        '    a__AModel [label="AModel"]\n'
        "  }\n"
        "  subgraph cluster_b {\n"
        '    label="b"\n'
        '    b__BConfig [label="BConfig"]\n'
        '    b__BNorm [label="BNorm", style="rounded,dashed"]\n'
        '    b__BModel [label="BModel"]\n'
        "  }\n"
        "  b__BConfig -> a__AConfig\n"
        "  b__BNorm -> a__ANorm [style=dashed]\n"
        "  b__BModel -> a__AModel\n"
        "}\n"
    )
    mermaid = unibody("graph", "b", "--classes", cwd=project.root).out
    assert '  subgraph b["b"]\n    b__BConfig["BConfig"]\n    b__BNorm["BNorm"]:::derived\n' in mermaid
    assert mermaid.endswith("  b__BModel --> a__AModel\n  classDef derived stroke-dasharray: 4 3\n")


def test_foreign_parent(workspace: Make) -> None:
    """A definition of another project is part of the tree, and says whose it is."""
    text = (
        "from unibody.modular.models.modular_llama import LlamaConfig, LlamaModel\n\n\n"
        "class TinyConfig(LlamaConfig):\n    pass\n\n\nclass TinyModel(LlamaModel):\n    pass\n"
    )
    out = unibody("graph", cwd=workspace({"tiny": text}).root).out
    (box,) = (row for row in out.splitlines() if '["llama (' in row)
    assert f"  tiny --> {box.split('[')[0].strip()}\n" in out


def test_broken_definitions_are_reported_and_left_out(workspace: Make) -> None:
    done = unibody("graph", cwd=workspace({**FILES, "d": "class DModel(:\n"}).root)
    assert done.status == 1
    assert '["b"]' in done.out
    assert '["d"]' not in done.out
    assert "error[UB001]" in done.err


@pytest.mark.parametrize("classes", [(), ("--classes",)])
def test_svg(workspace: Make, classes: tuple[str, ...]) -> None:
    done = unibody("graph", "--format", "svg", *classes, cwd=workspace(FILES).root)
    assert (done.status, done.err) == (0, "")
    picture = ET.fromstring(done.out)
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert texts[0] == "a"
    assert ("BNorm" in texts) == bool(classes)
    assert len([path for path in picture.iter(f"{SVG}path") if path.get("marker-end")]) == (3 if classes else 2)


def rectangles(tree: Tree) -> list[tuple[float, float, float, float]]:
    found = ET.fromstring(draw(tree)).iter(f"{SVG}rect")
    return [tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height")) for box in found]  # type: ignore[misc]


def test_boxes_do_not_touch_and_parents_stand_left() -> None:
    """A tree of 40 definitions of different heights, each with one or two parents among the earlier ones."""
    names = [f"model{i}" for i in range(40)]
    boxes = tuple(Box(n, n, tuple((f"C{j}", True) for j in range(i % 7))) for i, n in enumerate(names))
    pairs = {(i, i // 3) for i in range(1, 40)} | {(i, i // 5) for i in range(20, 40)}
    tree = Tree(boxes, tuple(Arrow(names[child], names[parent]) for child, parent in sorted(pairs)))
    found = rectangles(tree)
    for i, (x, y, width, height) in enumerate(found):
        assert x >= 0
        assert y >= 0
        for x2, y2, width2, height2 in found[:i]:
            assert x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
    for child, parent in pairs:
        assert found[parent][0] + found[parent][2] < found[child][0]


def test_empty_tree_and_special_characters() -> None:
    assert rectangles(Tree((), ())) == []
    assert "a &lt;b&gt; &amp; c" in draw(Tree((Box("x", "a <b> & c"),), ()))


def test_own_zoo(root: Path) -> None:
    done = unibody("graph", "mistral", "--classes", cwd=root)
    assert done.status == 0
    assert "  models_mistral__MistralAttention -.-> models_llama__LlamaAttention\n" in done.out
    assert "  models_mistral__MistralModel --> models_llama__LlamaModel\n" in done.out
