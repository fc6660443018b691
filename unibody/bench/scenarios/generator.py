"""How long the compiler takes: all definitions in memory, and the whole command in a folder where nothing is generated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from unibody.bench.measures import Meter

INPUTS = ("pyproject.toml", "modular", "unibody/core")


def run(
    backend: Any, config: dict[str, Any], checkpoint: Path | None, meter: Meter, facts: dict[str, Any]
) -> dict[str, Any]:
    """The reports of `compile` and `generate`, of the project that `unibody` is imported from or `scenario.project` names."""
    import unibody
    from unibody.generator.pipeline import compile_project
    from unibody.generator.project import find_project

    here = Path(str(unibody.__file__)).parents[1]
    root = Path(config["scenario"].get("project") or here)
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_project(root, Path(folder, "project"))
        result = compile_project(find_project(copy))
        if result.diagnostics:
            raise ValueError(f"{root} does not compile: {result.diagnostics[0]}")
        lines = sum(text.count("\n") for text in result.outputs.values())
        facts["files"], facts["lines"] = len(result.outputs), lines

        def start_over() -> None:
            for name in ("generated", ".unibody_cache"):
                shutil.rmtree(copy / name, ignore_errors=True)

        def generate() -> None:
            command = [sys.executable, "-m", "unibody", "generate", "--project", str(copy)]
            environment = {**os.environ, "PYTHONPATH": str(here)}
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

        return {
            "compile": meter.measure(lambda: compile_project(find_project(copy)), lines, "lines/s"),
            "generate": meter.measure(generate, lines, "lines/s", start_over),
        }


def copy_project(root: Path, target: Path) -> Path:
    """`target`, a copy of what the compiler reads of a repository, without what it wrote."""
    for name in INPUTS:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy(root / name, target / name)
    return target
