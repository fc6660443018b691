"""The same definitions give the same bytes, whatever the hash seed, the working directory and the order of the files."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unibody.generator import discover as discovery
from unibody.generator import pipeline
from unibody.generator.project import find_project

ROOT = Path(__file__).parents[2]
FOLDERS = ("modular", "unibody/core", "pyproject.toml")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A project with this repository's definitions and core, and nothing generated."""
    target = tmp_path / "elsewhere"
    for name in FOLDERS:
        source, place = ROOT / name, target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, place, symlinks=False) if source.is_dir() else shutil.copy(source, place)
    return target


def digest(project: Path) -> str:
    files = sorted(path for path in (project / "generated").rglob("*.py"))
    assert len(files) >= 3
    return hashlib.sha256(b"".join(str(f.relative_to(project)).encode() + f.read_bytes() for f in files)).hexdigest()


def test_hash_seed_and_working_directory(copy: Path, tmp_path: Path) -> None:
    found = set()
    for seed, cwd in (("0", copy), ("1", copy / "modular"), ("12345", tmp_path), ("random", ROOT)):
        shutil.rmtree(copy / "generated", ignore_errors=True)
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "unibody", "generate", "--project", str(copy)]
        subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
        found.add(digest(copy))
    assert len(found) == 1


def test_input_order(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = find_project(copy)
    expected = pipeline.compile_project(project).outputs
    for seed in range(5):
        sources = list(discovery.discover(project).items())
        random.Random(seed).shuffle(sources)
        monkeypatch.setattr(pipeline, "discover", lambda _, sources=sources: dict(sources))
        assert pipeline.compile_project(project).outputs == expected


def test_checked_in_files_are_what_this_checkout_compiles_to(copy: Path) -> None:
    outputs = pipeline.compile_project(find_project(copy)).outputs
    assert outputs == {path: (ROOT / path).read_text(encoding="utf-8") for path in outputs}


def test_no_path_time_or_version_in_the_output(copy: Path) -> None:
    for path, text in pipeline.compile_project(find_project(copy)).outputs.items():
        assert str(copy) not in text and str(ROOT) not in text, path
        assert str(Path.home()) not in text, path
        assert "0.14.10" not in text and sys.version.split()[0] not in text, path
