"""All definitions of the installed transformers convert to what is checked in there."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from unibody.generator.transformers.commands import as_report, compare
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
def test_every_file_is_identical(models: Path, jobs: int) -> None:
    found = compare(models, [], jobs)

    report = as_report(found)
    assert report["definitions"] == DEFINITIONS
    assert report["outputs"] == OUTPUTS
    assert report["errors"] == []
    assert [entry["path"] for entry in report["differs"]] == []  # type: ignore[index, attr-defined]
    assert report["identical"] == OUTPUTS
    assert report["orphans"] == []


def test_a_family_is_identical(models: Path) -> None:
    found = compare(models, ["gemma2", "sam2", "glm4v_moe", "vivit", "conditional_detr", "altclip"])

    assert not found.diagnostics
    assert [change.path for change in found.changes if change.kind != "unchanged"] == []
    assert len(found.changes) >= 10
