"""`--jobs`: the same bytes and the same errors from any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator.workers import SHARE, shares

Make = Callable[[dict[str, str]], Workspace]
ROOT = Path(__file__).parents[2]
BASE = 'class M0Config:\n    model_type = "m0"\n\n\nclass M0Model:\n    auto_class = "AutoModel"\n    size = 0\n'


def definitions() -> dict[str, str]:
    """Families in chains of different lengths; every ninth is broken, and has children."""
    files = {"m0": BASE}
    for i in range(1, 2 * SHARE + 6):
        parent = i // 2
        text = (
            f"from .modular_m{parent} import M{parent}Config, M{parent}Model\n\n\n"
            f'class M{i}Config(M{parent}Config):\n    model_type = "m{i}"\n\n\n'
            f"class M{i}Model(M{parent}Model):\n    size = {'nothing' if i % 9 == 8 else i}\n"
        )
        files[f"m{i}"] = text
    return files


def run(project: Workspace, *arguments: str) -> tuple[int, str, str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unibody", "generate", *arguments],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    written = {file.name: file.read_text() for file in (project.root / "generated").iterdir()}
    return done.returncode, done.stdout, done.stderr, written


@pytest.mark.parametrize("broken", [True, False])
def test_same_outcome(broken: bool, tmp_path: Path) -> None:
    files = {f"modular/modular_{name}.py": text for name, text in definitions().items()}
    if not broken:
        files = {path: text.replace("nothing", "8") for path, text in files.items()}
    one = run(Workspace(tmp_path / "one", files))
    assert (one[0], "error[UB012]" in one[2]) == (int(broken), broken)
    assert len(one[3]) > SHARE
    for jobs in ("2", "16"):
        assert run(Workspace(tmp_path / jobs, files), "--jobs", jobs) == one


def test_few_definitions_stay_in_one_process() -> None:
    names = [str(number) for number in range(2 * SHARE)]
    assert shares(names[:-1], 8) == [names[:-1]]
    assert shares([], 8) == [[]]
    two = shares(names, 8)
    assert len(two) == 2
    assert sorted(two[0] + two[1], key=int) == names
    assert shares(names, 1) == [names]
