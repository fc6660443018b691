from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[[dict[str, str]], Workspace]:
    """Makes a project of the given files; keys without a folder are definitions: `base` is modular/modular_base.py."""

    def make(files: dict[str, str]) -> Workspace:
        named = {k if "/" in k or "." in k else f"modular/modular_{k}.py": v for k, v in files.items()}
        return Workspace(tmp_path, named)

    return make


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT
