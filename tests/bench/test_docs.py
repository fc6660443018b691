"""The code of docs/benchmark.md runs, from top to bottom, and its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import run

from bench.command import bench
from bench.conftest import CONFIG, ROOT
from bench.small_repository import Repository
from unibody.bench import registry
from unibody.bench.database import Database
from unibody.bench.scenarios.inference import PHASES

PAGE = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")


def test_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    repository = Repository(tmp_path)
    done = bench(
        *("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out", "rounds=1"),
        *("--repository", repository.root, "--commit", repository.quick),
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    for known in (registry.BACKENDS, registry.SCENARIOS):
        monkeypatch.setattr(registry, "BACKENDS" if known is registry.BACKENDS else "SCENARIOS", dict(known))
    names = run("docs/benchmark.md", folder=tmp_path / "out")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{repository.quick[:10]} default 0.0")
    assert re.fullmatch(r"sampling took \d+\.\d % of a core", printed[1])
    assert names["report"]["task"]["throughput"]["unit"] == "words/s"
    assert registry.find_backend({"name": "mine"}) is names["Mine"]
    assert registry.find_scenario({"name": "joining"}) is names["run"]
    database = Database("results.sqlite")
    assert [row["measurements"]["tokens"] for row in database.model_measurements(names["benchmark"])] == [[1, 2, 3]]
    database.close()


def test_lists() -> None:
    """Every phase, configuration and choice that is named there exists, and none of scenarios and backends is left out."""
    for name in PHASES:
        assert f"`{name}`" in PAGE
    for group in ("backend", "scenario", "launcher"):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{group}` |"))
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == {
            file.stem for file in (CONFIG / group).glob("*.yaml")
        }
    named = re.search(r"Ready ones: (.*)\.", PAGE)
    assert named and set(re.findall(r"`(\w+)`", named[1])) == {file.stem for file in CONFIG.glob("*.yaml")}


def test_screenshot_is_there() -> None:
    assert (ROOT / "docs/benchmark.png").stat().st_size > 20_000
