"""The result of one configuration at one commit, in memory and in its folder."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unibody.bench.configuration import Configuration
from unibody.bench.report import FORMAT_VERSION, Report, merge_rounds, read_json, write_json
from unibody.bench.worktrees import Commit

LONGEST = 120  # characters of a folder's name


@dataclass
class Result:
    """What has been measured so far; an error ends it, and what was measured before stays."""

    commit: Commit
    configuration: Configuration
    folder: Path
    rounds: list[Report] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    sampling: list[dict[str, Any]] = field(default_factory=list)  # what it cost, for each round
    timeline: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None
    benchmark_id: str | None = None

    @property
    def report(self) -> Report:
        return merge_rounds(self.rounds) if self.rounds else {}

    @property
    def config_name(self) -> str:
        """The configuration's name without the choice of the model, which results are sorted by."""
        parts = [part for part in self.configuration.name.split(",") if not part.startswith("model=")]
        return ",".join(parts) or "default"

    def add(self, found: dict[str, Any]) -> None:
        """Takes over what a round of the worker found."""
        if "error" in found:
            self.error = found["error"]
            return
        self.rounds.append(found["report"])
        self.facts, self.environment = found["facts"], found["environment"]

    def write(self) -> None:
        """Writes benchmark_config.json, benchmark_report.json and benchmark.json, which has both and all the rest."""
        config = {**self.configuration.values, "environment": self.environment}
        report = {"format_version": FORMAT_VERSION, **self.report}
        write_json(self.folder / "benchmark_config.json", {"format_version": FORMAT_VERSION, **config})
        if self.rounds:
            write_json(self.folder / "benchmark_report.json", report)
        write_json(
            self.folder / "benchmark.json",
            {
                "format_version": FORMAT_VERSION,
                "name": self.configuration.name,
                "commit": {"name": self.commit.name, "sha": self.commit.sha, "subject": self.commit.subject, "date": self.commit.date},
                "benchmark_id": self.benchmark_id,
                "config": config,
                "report": self.report,
                "rounds": self.rounds,
                "facts": self.facts,
                "sampling": self.sampling,
                "timeline": self.timeline,
                "error": self.error,
            },
        )  # fmt: skip


def result_folder(output: Path, commit: Commit, configuration: Configuration) -> Path:
    """`output/commit=…/…`, with what file systems do not take replaced and what is too long cut."""
    name = re.sub(r"[^\w=,.+-]", "_", configuration.name)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(configuration.name.encode()).hexdigest()[:8]}"
    return output / f"commit={commit.label}" / name


def read_results(folder: Path) -> list[Result]:
    """The results of an earlier run, or of optimum-benchmark, below a folder; the newest commit last."""
    found = [read_result(file) for file in sorted(folder.rglob("benchmark.json"))]
    return sorted(found, key=lambda result: result.commit.date)


def read_result(file: Path) -> Result:
    """One result; a file of optimum-benchmark, which names no commit, is one of the version that wrote it."""
    told = read_json(file)
    config, report = told.get("config") or {}, told.get("report") or {}
    environment = config.get("environment") or {}
    if "commit" in told:
        commit, name = Commit(root=None, **told["commit"]), told["name"]
    else:
        version = environment.get("optimum_benchmark_version")
        commit = Commit(f"optimum-benchmark {version}" if version else "imported", None, str(file.parent), "", None)
        name = f"backend={(config.get('backend') or {}).get('name', 'unknown')}"
        backend = config.get("backend") or {}
        config = {
            **config,
            "model": {"name": config.get("name") or backend.get("model"), "path": backend.get("model")},
        }
    config.setdefault("model", {})
    rounds = told.get("rounds") or ([report] if report else [])
    made = Result(commit, Configuration(name, config), file.parent, rounds, told.get("facts") or {}, environment)
    made.timeline, made.error, made.sampling = (
        told.get("timeline") or [],
        told.get("error"),
        told.get("sampling") or [],
    )
    made.benchmark_id = told.get("benchmark_id")
    return made
