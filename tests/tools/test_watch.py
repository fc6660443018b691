"""`unibody watch`: generates soon after each change, and nothing but Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator.session import Session
from unibody.generator.tools import watch as module
from unibody.generator.tools.watch import watch

Make = Callable[[dict[str, str]], Workspace]
ROOT = Path(__file__).parents[2]
BASE = "class BaseModel:\n    size = 1\n"


def play(project: Workspace, steps: Iterator[None]) -> int:
    """Watch, with the next of the steps wherever it would wait; Ctrl-C after the last."""

    def wait(seconds: float) -> None:
        if next(steps, project) is project:
            raise KeyboardInterrupt

    return watch([], project.root, wait)


def test_changes_and_errors(workspace: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = workspace({"base": BASE})
    output = project.root / "generated/modeling_base.py"

    def steps() -> Iterator[None]:
        assert "size = 1" in output.read_text()
        first = output.stat().st_mtime_ns
        capsys.readouterr()
        yield
        assert capsys.readouterr().out == "", "nothing has changed"
        assert output.stat().st_mtime_ns == first
        project.write("modular/modular_base.py", BASE.replace("1", "22"))
        yield
        assert "size = 22" in output.read_text()
        assert "updated generated/modeling_base.py\n" in capsys.readouterr().out
        project.write("modular/modular_base.py", "class BaseModel(:\n")
        yield
        assert "error[UB001]" in capsys.readouterr().err
        project.write("pyproject.toml", "[tool.unibody\n")
        yield
        assert "error[UB020]" in capsys.readouterr().err
        project.write("pyproject.toml", '[tool.unibody]\noutput = "compiled"\n')
        project.write("modular/modular_base.py", BASE)
        yield
        assert "size = 1" in (project.root / "compiled/modeling_base.py").read_text()
        project.write("modular/modular_more.py", BASE.replace("Base", "More"))
        yield
        assert (project.root / "compiled/modeling_more.py").exists()
        (project.root / "modular/modular_more.py").unlink()
        yield
        assert not (project.root / "compiled/modeling_more.py").exists()
        (project.root / "modular/modular_base.py").unlink()
        (project.root / "modular").rmdir()
        yield
        assert "error[UB020]" in capsys.readouterr().err
        yield

    assert play(project, steps()) == 0


def test_defect_of_the_compiler(
    workspace: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = workspace({"base": BASE})

    def fail(names: list[str], root: Path, session: Session) -> int:
        raise ZeroDivisionError("as a test")

    def steps() -> Iterator[None]:
        assert "ZeroDivisionError: as a test" in capsys.readouterr().err
        monkeypatch.undo()
        project.write("modular/modular_base.py", BASE + "\n")
        yield
        assert (project.root / "generated/modeling_base.py").exists()

    monkeypatch.setattr(module, "generate", fail)
    assert play(project, steps()) == 0


def test_no_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch([], tmp_path) == 2
    assert "error[UB020]" in capsys.readouterr().err


def test_process(workspace: Make) -> None:
    """A real process regenerates within a second of a change, and SIGINT ends it with status 0."""
    project = workspace({"base": BASE})
    output = project.root / "generated/modeling_base.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "unibody", "watch"]
    with subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("watching modular/, ")
        times = []
        for size in range(2, 7):
            while not process.stdout.readline().endswith(" s\n"):
                pass
            start = time.monotonic()
            project.write("modular/modular_base.py", f"class BaseModel:\n    size = {size}\n")
            while not (output.exists() and f"size = {size}" in output.read_text()):
                assert time.monotonic() - start < 60, "it does not regenerate"
                time.sleep(0.01)
            times.append(time.monotonic() - start)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    assert min(times) < 1, times
