"""Nothing changed: the answer comes at once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 0.3  # seconds beyond the start of the interpreter, for the definitions of this repository
ROUNDS = 7


def processor_seconds(*command: str, cwd: Path) -> float:
    """The least of several runs: what else runs on the machine only adds to it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.fixture(scope="module")
def checked(root: Path) -> Path:
    """The repository, in which a check has found nothing to change, and remembers it."""
    done = subprocess.run([sys.executable, "-m", "unibody", "check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.mark.slow
def test_check_with_nothing_changed(checked: Path) -> None:
    start = processor_seconds("-c", "pass", cwd=checked)
    assert processor_seconds("-m", "unibody", "check", cwd=checked) - start < LIMIT


def test_what_check_does_not_import(checked: Path) -> None:
    code = (
        "import atexit, sys; from unibody.cli import main; sys.argv = ['unibody', 'check']; "
        "atexit.register(lambda: print(*sys.modules)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=checked, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "unibody.generator.memory" in loaded
    unused = {"rich", "torch", "jinja2", "multiprocessing", "packaging", "unibody.generator.pipeline"}
    assert not unused & loaded
