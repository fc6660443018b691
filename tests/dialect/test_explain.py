"""Every line of a generated file is traced to the line that somebody wrote; the family tree shows who inherits from whom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dialect.tree import plant, tree

from unibody.generator import commands
from unibody.generator.dialect import dialect_of
from unibody.generator.tools.explain import explain
from unibody.generator.tools.family_tree import graph
from unibody.generator.transformers.library import package_file

LLAMA = """
from torch import nn


class LlamaMLP(nn.Module):
    def forward(self, x):
        # doubled
        return x + x


class LlamaBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = LlamaMLP()
""".lstrip()
DUCK = """
from ..llama.modeling_llama import LlamaBlock


class DuckBlock(LlamaBlock):
    def __init__(self):
        super().__init__()
        self.own = 1
""".lstrip()
GOOSE = "from ..duck.modeling_duck import DuckBlock\n\n\nclass GooseBlock(DuckBlock):\n    pass\n"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    files = {"llama/modeling_llama.py": LLAMA, "duck/modular_duck.py": DUCK, "goose/modular_goose.py": GOOSE}
    root = plant(tmp_path, files)
    assert commands.generate([], tree(root)) == 0
    return root


def line_of(root: Path, path: str, text: str) -> int:
    return (root / path).read_text(encoding="utf-8").split("\n").index(text) + 1


def test_a_line_is_followed_to_the_hand_that_wrote_it(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = line_of(models, "goose/modeling_goose.py", "        return x + x")
    capsys.readouterr()

    assert explain(f"goose/modeling_goose.py:{number}", tree(models)) == 0

    out = capsys.readouterr().out
    assert f"goose/modeling_goose.py:{number}: GooseMLP.forward\n" in out
    assert "parent: llama/modeling_llama.py:7: LlamaMLP.forward\n" in out
    classes = (
        "GooseMLP (goose/modular_goose.py)",
        "DuckMLP (duck/modular_duck.py)",
        "LlamaMLP (llama/modeling_llama.py)",
    )
    assert f"  = through: {' <- '.join(classes)}\n" in out


def test_a_line_of_a_definition_between(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = line_of(models, "goose/modeling_goose.py", "        self.own = 1")
    capsys.readouterr()

    assert explain(f"goose/modeling_goose.py:{number}", tree(models)) == 0

    out = capsys.readouterr().out
    assert "parent: duck/modular_duck.py:7: DuckBlock.__init__\n" in out
    assert "  = through: GooseBlock (goose/modular_goose.py) <- DuckBlock (duck/modular_duck.py)\n" in out


def test_imports_and_the_banner(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = line_of(models, "goose/modeling_goose.py", "from torch import nn")
    capsys.readouterr()

    assert explain(f"goose/modeling_goose.py:{number}", tree(models)) == 0
    assert "import: llama/modeling_llama.py:1" in capsys.readouterr().out
    assert explain("goose/modeling_goose.py:2", tree(models)) == 0
    assert "banner of: goose/modular_goose.py:1" in capsys.readouterr().out


def test_what_no_definition_makes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("llama/modeling_llama.py:3", tree(models)) == 2
    assert "error[UB026]: no definition makes `llama/modeling_llama.py`" in capsys.readouterr().err
    file = models / "duck/modeling_duck.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n\nmine = 1\n", encoding="utf-8")
    number = line_of(models, "duck/modeling_duck.py", "mine = 1")
    assert explain(f"duck/modeling_duck.py:{number}", tree(models)) == 1
    assert "no definition makes this line" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    ["gemma2/modeling_gemma2.py", "sam2/image_processing_sam2.py", "deepseek_vl/image_processing_pil_deepseek_vl.py"],
)
def test_origins_have_the_words_of_their_lines(path: str) -> None:
    """On real files: a line holds nothing but words of the lines that it is traced to, in the child's names."""
    root = package_file("transformers/models")
    assert root is not None
    trace = dialect_of(tree(root)).trace(tree(root), path)
    name = path.partition("/")[0]

    rows = trace.text.split("\n")
    traced = 0
    for number, row in enumerate(rows, start=1):
        line, _ = trace.at(number)
        if not row.strip() or line.kind == "banner":
            continue
        written = "\n".join(trace.read(o.path).split("\n")[o.line - 1] for o in line.origins)
        known = {word.lower() for word in re.findall(r"[^\W_]+", written)}
        if (
            line.kind == "import"
        ):  # the names; the module, or what guards them, may stand on another line of the statement
            row = row.partition("import ")[2] or row.partition("from ")[0].removeprefix("if ")
        if re.search(r"\b[A-Z]\w*\.\w+\(", written):  # a class's own method, which the conversion asks of super()
            known.add("super")
        if written.rstrip().endswith(": ..."):  # an empty body
            known.add("pass")
        foreign = {word.lower() for word in re.findall(r"[^\W_]+", row)} - known
        assert not {word for word in foreign if name.replace("_", "")[:4] not in word}, (number, row, written)
        traced += 1
    assert traced > 100


def test_the_family_tree(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert graph(["duck"], tree(models), "mermaid", classes=False) == 0
    rows = capsys.readouterr().out.split("\n")
    assert "  duck_modular_duck --> llama_modeling_llama" in rows
    assert "  goose_modular_goose --> duck_modular_duck" in rows
    assert graph([], tree(models), "mermaid", classes=True) == 0
    out = capsys.readouterr().out
    assert "  duck_modular_duck__DuckBlock --> llama_modeling_llama__LlamaBlock\n" in out
    assert "  duck_modular_duck__DuckMLP -.-> llama_modeling_llama__LlamaMLP\n" in out
    assert graph([], tree(models), "svg", classes=True) == 0
    assert capsys.readouterr().out.startswith("<svg")


def test_diff_is_a_patch(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.diff([], tree(models)) == 0
    file = models / "llama/modeling_llama.py"
    file.write_text(LLAMA.replace("x + x", "2 * x"), encoding="utf-8")
    capsys.readouterr()

    assert commands.diff(["goose"], tree(models)) == 1

    out = capsys.readouterr().out
    assert "--- a/goose/modeling_goose.py\n+++ b/goose/modeling_goose.py\n" in out
    assert "-        return x + x\n+        return 2 * x\n" in out


def test_stdout(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert commands.show("goose", tree(models)) == 0
    assert capsys.readouterr().out == (models / "goose/modeling_goose.py").read_text(encoding="utf-8")
