"""The writer: all or nothing for each file, orphans removed, foreign files left alone, `check` says what differs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator.commands import check, generate

ROOT = Path(__file__).parents[2]
Make = Callable[[dict[str, str]], Workspace]
BASE = "class BaseModel:\n    size = 1\n"
CHILD = "from .modular_base import BaseModel\n\n\nclass ChildModel(BaseModel):\n    pass\n"


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    files = (root / "generated").rglob("*")
    return {f.name: (f.read_text(), f.stat().st_mtime_ns) for f in files if f.is_file()}


def test_second_run_writes_nothing(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "child": CHILD})
    assert generate([], project.root) == 0
    assert capsys.readouterr().out.endswith("3 created, 0 updated, 0 unchanged, 0 removed\n")
    before = snapshot(project.root)
    assert generate([], project.root) == 0
    assert capsys.readouterr().out == "0 created, 0 updated, 3 unchanged, 0 removed\n"
    assert snapshot(project.root) == before


def test_only_what_changed_is_written(workspace: Make) -> None:
    project = workspace({"base": BASE, "other": BASE.replace("Base", "Other")})
    generate([], project.root)
    before = snapshot(project.root)
    project.write("modular/modular_other.py", BASE.replace("Base", "Other").replace("1", "2"))
    generate([], project.root)
    after = snapshot(project.root)
    assert {name for name in before if before[name] != after[name]} == {"modeling_other.py"}


def test_orphans(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "child": CHILD})
    generate([], project.root)
    (project.root / "modular/modular_child.py").unlink()
    (project.root / "generated/modeling_mine.py").write_text("# written by hand\n")
    capsys.readouterr()
    assert generate(["base"], project.root) == 0
    assert "removed" not in capsys.readouterr().out.replace("0 removed", ""), "a partial run removes nothing"
    assert check([], project.root) == 1
    assert "orphaned: generated/modeling_child.py\n" in capsys.readouterr().out
    assert generate([], project.root) == 0
    assert "removed generated/modeling_child.py\n" in capsys.readouterr().out
    names = {f.name for f in (project.root / "generated").iterdir()}
    assert names == {"modeling_base.py", "modeling_mine.py", "registry.py"}


def test_orphans_stay_while_a_definition_is_broken(workspace: Make) -> None:
    project = workspace({"base": BASE, "child": CHILD})
    generate([], project.root)
    before = snapshot(project.root)
    project.write("modular/modular_child.py", CHILD + "print()\n")
    assert generate([], project.root) == 1
    assert snapshot(project.root) == before


def test_a_file_that_is_not_ours_is_never_overwritten(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "generated/modeling_base.py": "precious = True\n"})
    assert generate([], project.root) == 2
    assert (project.root / "generated/modeling_base.py").read_text() == "precious = True\n"
    assert not (project.root / "generated/registry.py").exists()
    assert capsys.readouterr().err == (
        "generated/modeling_base.py: error[UB024]: a file that unibody did not write is in the way\n"
        "  = help: move it away, or give the definition another name\n"
        "1 error; `unibody help UB024` explains it\n"
    )


def test_check(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "child": CHILD})
    assert check([], project.root) == 1
    assert capsys.readouterr().out == (
        "missing: generated/modeling_base.py\n"
        "missing: generated/modeling_child.py\n"
        "missing: generated/registry.py\n"
        "3 of 3 files differ; run: unibody generate\n"
    )
    generate([], project.root)
    assert check([], project.root) == 0
    file = project.root / "generated/modeling_child.py"
    file.write_text(file.read_text().replace("size = 1", "size = 7"))
    capsys.readouterr()
    assert check([], project.root) == 1
    out = capsys.readouterr().out
    assert out.startswith("stale: generated/modeling_child.py\n--- generated/modeling_child.py (current)\n")
    assert "-    size = 7\n+    size = 1\n" in out
    assert out.endswith("1 of 3 files differ; run: unibody generate\n")
    assert check(["base"], project.root) == 0, "the named definition is up to date"
    assert file.read_text().count("size = 7") == 1, "check writes nothing"


def test_check_without_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([], tmp_path) == 2
    assert "error[UB020]" in capsys.readouterr().err


def test_good_definitions_compile_beside_bad_ones(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "bad": "print()\n", "worse": "x = (\n", "child": CHILD})
    assert generate([], project.root) == 1
    assert {f.name for f in (project.root / "generated").iterdir()} == {"modeling_base.py", "modeling_child.py"}
    err = capsys.readouterr().err
    assert "modular/modular_bad.py:1:1: error[UB003]" in err
    assert "modular/modular_worse.py:1:5: error[UB001]" in err
    assert err.endswith("2 errors; `unibody help UB003` explains the first\n")


def test_output_not_writable(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE, "./generated": ""})
    assert generate([], project.root) == 2
    assert capsys.readouterr().err == (
        "generated: error[UB022]: cannot write `generated`: File exists\n"
        "  = help: make `generated/` writable and run again\n"
        "1 error; `unibody help UB022` explains it\n"
    )


def test_a_partial_run_beside_a_broken_definition(workspace: Make) -> None:
    project = workspace({"base": BASE, "child": CHILD})
    generate([], project.root)
    registry = (project.root / "generated/registry.py").read_text()
    project.write("modular/modular_child.py", "print()\n")
    project.write("modular/modular_base.py", BASE.replace("1", "3"))
    assert generate(["base"], project.root) == 0
    assert "size = 3" in (project.root / "generated/modeling_base.py").read_text()
    assert (project.root / "generated/registry.py").read_text() == registry, "it would lack the broken one"


def test_killed_at_any_moment(workspace: Make) -> None:
    """SIGKILL at 100 random moments of a run that rewrites every file: each file holds old or new bytes, the next run repairs."""
    count, body = 12, "".join(f"    field_{i} = SIZE\n" for i in range(300))

    def definitions(size: int) -> dict[str, str]:
        text = f"SIZE = {size}\n\n\nclass BaseModel:\n{body}"
        return {f"modular/modular_m{i}.py": text.replace("Base", f"M{i}") for i in range(count)}

    project = workspace(definitions(0))
    assert generate([], project.root) == 0
    states = [{name: text for name, (text, _) in snapshot(project.root).items()}]
    for path, text in definitions(1).items():
        project.write(path, text)
    generate([], project.root)
    states.append({name: text for name, (text, _) in snapshot(project.root).items()})

    # The writer alone is started, with the texts at hand, so that the kill falls into its few milliseconds.
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from unibody.generator.dialect import Outcome\n"
        "from unibody.generator.write import apply, compare\n"
        "states = json.load(open(sys.argv[2]))\n"
        "root = Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "turn = 0\n"
        "while True:\n"
        "    turn += 1\n"
        "    outputs = {f'generated/{n}': t for n, t in states[turn % 2].items()}\n"
        "    apply(root, compare(root, Outcome(outputs, (), True)), lambda text: True)\n"
    )
    (project.root / "states.json").write_text(json.dumps(states))
    chance = random.Random(0)
    mixed = left = 0
    command = [sys.executable, "-c", script, str(project.root), str(project.root / "states.json")]
    for _ in range(100):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
        found = {name: text for name, (text, _) in snapshot(project.root).items()}
        left += sum(name.startswith(".unibody-tmp-") for name in found)
        for name in states[0]:
            assert found[name] in (states[0][name], states[1][name]), name
        mixed += len({found[name] == states[0][name] for name in states[0] if states[0][name] != states[1][name]}) > 1
    assert mixed, "no kill fell between two files: the test proves nothing"
    assert generate([], project.root) == 0
    assert {name: text for name, (text, _) in snapshot(project.root).items()} == states[1], f"{left} temporary files"


def test_a_folder_in_the_way(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE})
    (project.root / "generated/modeling_base.py").mkdir(parents=True)
    for command in (check, generate):
        assert command([], project.root) == 2
        assert capsys.readouterr().err.startswith(
            "generated: error[UB022]: cannot read `modeling_base.py`: Is a directory\n"
            "  = help: make it a file that can be read, or move it away\n"
        )


def test_another_run_cleans_up_meanwhile(workspace: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written looks like what a killed run has left."""
    project = workspace({"base": BASE})
    rename, renamed = os.replace, []

    def late(source: str, target: Path) -> None:
        if target not in renamed:
            Path(source).unlink()
        renamed.append(target)
        rename(source, target)

    monkeypatch.setattr("os.replace", late)
    assert generate([], project.root) == 0
    assert len(renamed) == 2 * len(snapshot(project.root))
    assert check([], project.root) == 0
