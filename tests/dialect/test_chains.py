"""A changed parent is followed to all its heirs, and `check` says through which chain; the cache never hides a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dialect.tree import plant, tree

from unibody.generator import commands
from unibody.generator.transformers import dialect, pipeline
from unibody.generator.transformers.pipeline import Result

LLAMA = "from torch import nn\n\n\nclass LlamaBlock(nn.Module):\n    def forward(self, x):\n        return x + 1\n"


def heir(parent: str, child: str) -> str:
    return (
        f"from ..{parent.lower()}.modeling_{parent.lower()} import {parent}Block\n\n\n"
        f"class {child}Block({parent}Block):\n    pass\n"
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = plant(
        tmp_path,
        {
            "llama/modeling_llama.py": LLAMA,
            "gemma/modular_gemma.py": heir("Llama", "Gemma"),
            "gemma2/modular_gemma2.py": heir("Gemma", "Gemma2"),
            "other/modeling_other.py": LLAMA.replace("Llama", "Other"),
            "lone/modular_lone.py": heir("Other", "Lone"),
        },
    )
    assert commands.generate([], tree(root)) == 0, "parents that are generated themselves are made first"
    return root


def test_what_was_generated_is_up_to_date(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.check([], tree(models)) == 0
    assert "3 files are up to date" in capsys.readouterr().out


@pytest.mark.parametrize("warm", [True, False])
def test_a_changed_parent_makes_all_heirs_stale(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], warm: bool
) -> None:
    if warm:
        assert commands.check([], tree(models)) == 0
    parent = models / "llama/modeling_llama.py"
    parent.write_text(LLAMA.replace("x + 1", "x + 2"))
    capsys.readouterr()

    status = commands.check(["gemma2"], tree(models))

    out = capsys.readouterr().out
    assert status == 1
    assert "stale: gemma2/modeling_gemma2.py" in out
    end = "llama/modeling_llama.py" if warm else "gemma/modular_gemma.py or llama/modeling_llama.py"
    assert f"  gemma2/modeling_gemma2.py <- gemma/modeling_gemma.py <- {end}\n" in out
    assert "+        return x + 2" in out
    assert "lone" not in out


def test_naming_an_heir_makes_its_parents_too_but_writes_only_the_heir(models: Path) -> None:
    for name in ("gemma", "gemma2"):
        (models / f"{name}/modeling_{name}.py").unlink()

    assert commands.generate(["gemma2"], tree(models)) == 0

    assert "class Gemma2Block" in (models / "gemma2/modeling_gemma2.py").read_text()
    assert not (models / "gemma/modeling_gemma.py").exists()


def test_generate_mends_the_whole_chain_at_once(models: Path, tmp_path: Path) -> None:
    (models / "llama/modeling_llama.py").write_text(LLAMA.replace("x + 1", "x + 2"))

    assert commands.generate([], tree(models)) == 0

    assert "x + 2" in (models / "gemma2/modeling_gemma2.py").read_text()
    assert commands.check([], tree(models)) == 0


@pytest.mark.parametrize("spoiled", ["{", "[]", '{"key": 1}', '{"key": "x", "definitions": {}}'])
def test_a_spoiled_cache_is_as_good_as_none(models: Path, tmp_path: Path, spoiled: str) -> None:
    (tmp_path / "cache.json").write_text(spoiled)

    assert commands.check([], tree(models)) == 0


@pytest.mark.parametrize("path", ["lone/modeling_lone.py", "lone/modular_lone.py", "other/modeling_other.py"])
def test_the_cache_sees_every_change(models: Path, tmp_path: Path, path: str) -> None:
    assert commands.check([], tree(models)) == 0
    file = models / path
    file.write_text(file.read_text().replace("Block", "Brick"))

    assert commands.check([], tree(models)) == 1


@pytest.mark.parametrize("path", ["lone/modular_lone.py", "other/modeling_other.py"])
def test_a_change_while_a_run_converts_is_seen_by_the_next(
    models: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_and_change(*arguments: Any) -> Result:
        result = pipeline.convert_tree(*arguments)
        file = models / path
        file.write_text(file.read_text().replace("Block", "Brick"))
        return result

    with monkeypatch.context() as changing:
        changing.setattr(dialect, "convert_tree", convert_and_change)
        assert commands.check([], tree(models)) == 0
    assert commands.check([], tree(models)) == 1


def test_a_file_that_nothing_generates_any_more_is_reported(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "lone/modular_lone.py").unlink()

    assert commands.check([], tree(models)) == 1
    assert "orphaned: lone/modeling_lone.py" in capsys.readouterr().out


def test_a_file_that_was_written_by_hand_is_not_overwritten(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models / "lone/modeling_lone.py"
    file.write_text("mine = 1\n")

    assert commands.generate(["lone"], tree(models)) == 2
    assert file.read_text() == "mine = 1\n"
    assert "error[UB024]" in capsys.readouterr().err
