"""Nothing changed: a check loads no compiler. How long it takes, `python -m benchmarks.compiler` measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def checked(root: Path) -> Path:
    """The repository, in which a check has found nothing to change, and remembers it."""
    done = subprocess.run([sys.executable, "-m", "unibody", "check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_what_check_does_not_import(checked: Path) -> None:
    code = (
        "import atexit, sys; from unibody.cli import main; sys.argv = ['unibody', 'check']; "
        "atexit.register(lambda: print(*sys.modules)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=checked, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "unibody.generator.memory" in loaded
    unused = {"rich", "pydantic", "torch", "jinja2", "multiprocessing", "packaging", "unibody.generator.pipeline"}
    assert not unused & loaded
