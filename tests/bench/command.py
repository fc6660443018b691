"""`unibody bench` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from bench.conftest import CONFIG, ROOT
from unibody.cli import unibody


def bench(*arguments: str | Path, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """What the command prints and its exit status."""
    return subprocess.run(
        line(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, **options
    )


def invoke(*arguments: str | Path) -> Result:
    """The same in this process, which has imported what takes long."""
    return CliRunner().invoke(unibody, ["bench", *map(str, arguments)], catch_exceptions=False)


def line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "unibody", "bench", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def ready(name: str, output: Path, *more: str | Path) -> Result:
    """The command with one of the ready configurations, in this process."""
    return invoke("--config-dir", CONFIG, "--config-name", name, "--output", output, "launcher=inprocess", *more)
