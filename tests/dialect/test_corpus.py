"""All definitions of the installed transformers convert to what is checked in there."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from dialect.tree import tree

from unibody.generator.commands import check
from unibody.generator.transformers.library import package_file

DEFINITIONS, OUTPUTS = 326, 667  # of transformers 5.23.0


@pytest.fixture(scope="module")
def models() -> Path:
    assert version("transformers") == "5.23.0", "the figures are those of this release"
    found = package_file("transformers/models")
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_file_is_identical(models: Path, jobs: int, tmp_path: Path) -> None:
    status = check([], tree(models), "text", jobs, tmp_path / "report.json")

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["definitions"] == DEFINITIONS
    assert report["outputs"] == OUTPUTS
    assert report["errors"] == []
    assert [entry["path"] for entry in report["differs"]] == []
    assert report["identical"] == OUTPUTS
    assert report["orphans"] == []
    assert status == 0


def test_a_family_is_identical(models: Path, tmp_path: Path) -> None:
    names = ["gemma2", "sam2", "glm4v_moe", "vivit", "conditional_detr", "altclip"]
    status = check(names, tree(models), "text", 1, tmp_path / "report.json")

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert status == 0
    assert report["identical"] == report["outputs"] >= 10
