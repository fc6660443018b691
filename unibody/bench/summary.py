"""summary.json of each commit and of all of them, with the changes between them; the same as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unibody.bench.comparison import Change, compare
from unibody.bench.metrics import choose_metrics
from unibody.bench.report import FORMAT_VERSION, TIMES, find_metric, metric_unit, write_json, write_text
from unibody.bench.results import Result
from unibody.bench.tables import format_table, format_value

LEGEND = (
    "± is half the width of the interval that holds 95 % of resampled changes. In brackets: within the noise. "
    "With a question mark: too few values to tell the noise."
)


@dataclass(frozen=True)
class Compared:
    """A change, and what it is between: two commits of one configuration, or two configurations at one commit."""

    model: str
    config: str
    commit: str
    baseline: str
    of: str  # "commit" or "configuration"
    change: Change

    def to_dict(self) -> dict[str, Any]:
        told = {
            "model": self.model,
            "config": self.config,
            "commit": self.commit,
            "baseline": self.baseline,
            "of": self.of,
        }
        return told | self.change.to_dict()


@dataclass
class Summary:
    """All results of a run and what they come to."""

    results: list[Result]
    wanted: Sequence[str] = ()
    baseline: str | None = (
        None  # an override, such as backend=transformers, whose configurations the others are compared with
    )
    told: dict[str, Any] = field(default_factory=dict)  # how the run was made: command, time, machine

    def __post_init__(self) -> None:
        self.reports = {id(result): result.report for result in self.results}
        self.metrics = choose_metrics(self.wanted, list(self.reports.values()))
        self.changes = [*self._between_commits(), *self._between_configurations()]

    def report(self, result: Result) -> dict[str, Any]:
        return self.reports[id(result)]

    def unit(self, metric: str) -> str:
        return next((unit for report in self.reports.values() if (unit := metric_unit(report, metric))), "")

    def regressions(self, percent: float) -> list[Compared]:
        """What has become worse by more than so many per cent, from commit to commit."""
        return [found for found in self.changes if found.of == "commit" and found.change.is_regression(percent)]

    def failures(self) -> list[Result]:
        return [result for result in self.results if result.error is not None]

    def disagreements(self) -> list[dict[str, Any]]:
        """Where two sides generate other tokens from one checkpoint: their times are of different work."""
        found: list[dict[str, Any]] = []
        first: dict[tuple[Any, ...], Result] = {}
        for result in self.results:
            if (tokens := result.facts.get("tokens")) is None or result.error:
                continue
            values = result.configuration.values
            scenario = values["scenario"]
            sizes = tuple(scenario.get(name) for name in ("batch_size", "sequence_length", "new_tokens"))
            key = (result.configuration.model, repr(values.get("model")), repr(values.get("quantizer")), sizes)
            other = first.setdefault(key, result)
            if other.facts["tokens"]["sha256"] != tokens["sha256"]:
                sides = [f"{side.config_name} at {side.commit.label}" for side in (other, result)]
                found.append({"model": result.configuration.model, "sides": sides})
        return found

    def _between_commits(self) -> Iterator[Compared]:
        """Each commit against the first one that measured the same configuration."""
        first: dict[tuple[str, str], Result] = {}
        for result in self.results:
            if not result.rounds:
                continue
            base = first.setdefault((result.configuration.model, result.config_name), result)
            if base is not result:
                yield from self._changes(base, result, base.commit.label, "commit")

    def _between_configurations(self) -> Iterator[Compared]:
        """Each configuration against the one that differs from it in the baseline's override alone."""
        if self.baseline is None:
            return
        key = self.baseline.partition("=")[0]

        def others(result: Result) -> tuple[str, ...]:
            parts = result.configuration.name.split(",")
            return (result.commit.label, *(part for part in parts if part.partition("=")[0] != key))

        bases = {others(r): r for r in self.results if self.baseline in r.configuration.name.split(",") and r.rounds}
        for result in self.results:
            base = bases.get(others(result))
            if base is not None and base is not result and result.rounds:
                yield from self._changes(base, result, base.config_name, "configuration")

    def _changes(self, base: Result, result: Result, name: str, of: str) -> Iterator[Compared]:
        for metric in self.metrics:
            change = compare(self.report(base), self.report(result), metric, (base.rounds, result.rounds))
            if change is not None:
                yield Compared(result.configuration.model, result.config_name, result.commit.label, name, of, change)

    def to_dict(self) -> dict[str, Any]:
        """The merged summary: {model: {configuration: {commit: metrics}}}, and what is to be known beside it."""
        nested: dict[str, dict[str, dict[str, Any]]] = {}
        for result in self.results:
            configs = nested.setdefault(result.configuration.model, {})
            configs.setdefault(result.config_name, {})[result.commit.label] = self.values(result)
        commits = {r.commit.label: r.commit for r in self.results}
        return {
            "format_version": FORMAT_VERSION,
            **self.told,
            "commits": {
                label: {"name": c.name, "sha": c.sha, "subject": c.subject, "date": c.date} for label, c in commits.items()
            },
            "units": {metric: self.unit(metric) for metric in self.metrics},
            "results": nested,
            "changes": [found.to_dict() for found in self.changes],
            "failures": [
                {
                    "model": r.configuration.model, "config": r.config_name, "commit": r.commit.label,
                    "rounds": len(r.rounds), **(r.error or {}),
                }
                for r in self.failures()
            ],
            "disagreements": self.disagreements(),
        }  # fmt: skip

    def values(self, result: Result) -> dict[str, float | None]:
        return {metric: find_metric(self.report(result), metric) for metric in self.metrics}

    def to_csv(self) -> str:
        """One line for each number."""
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["model", "config", "commit", "metric", "value", "unit", "count", "mad", "rounds"])
        for result in self.results:
            for metric, value in self.values(result).items():
                phase, measure, _ = metric.split(".", 2)
                times = (self.report(result).get(phase) or {}).get(measure if measure in TIMES else "none") or {}
                row = [result.configuration.model, result.config_name, result.commit.label, metric]
                number = "" if value is None else repr(value)
                table.writerow(
                    [*row, number, self.unit(metric), times.get("count"), times.get("mad"), len(result.rounds)]
                )
        return out.getvalue()

    def to_markdown(self) -> str:
        """The numbers, the changes and the failures as tables."""
        head = ["model", "configuration", "commit", *self.metrics]
        rows = [
            [
                result.configuration.model, result.config_name, result.commit.label,
                *(format_value(value, self.unit(metric)) for metric, value in self.values(result).items()),
            ]
            for result in self.results
        ]  # fmt: skip
        parts = [format_table(head, rows, left=3)]
        if self.changes:
            parts += [self._changes_table(), LEGEND]
        parts += [
            f"Failed: {r.configuration.model}, {r.config_name}, {r.commit.label}: {(r.error or {}).get('message')}"
            for r in self.failures()
        ]
        parts += [
            f"Not comparable: {' and '.join(d['sides'])} generate different tokens from {d['model']}."
            for d in self.disagreements()
        ]
        return "\n\n".join(parts) + "\n"

    def _changes_table(self) -> str:
        """One line for each pair of sides, one column for each metric."""
        pairs: dict[tuple[str, ...], dict[str, Change]] = {}
        for found in self.changes:
            sides = (found.model, found.config, found.commit, found.baseline)
            pairs.setdefault(sides, {})[found.change.metric] = found.change
        used = [metric for metric in self.metrics if any(metric in changes for changes in pairs.values())]
        rows = [
            [*sides, *(format_change(changes[metric]) if metric in changes else "–" for metric in used)]
            for sides, changes in pairs.items()
        ]
        return format_table(["model", "configuration", "commit", "against", *used], rows, left=4)

    def write(self, output: Path) -> None:
        """Writes summary.json of each commit, and summary.json, .csv and .md of all."""
        for label in dict.fromkeys(result.commit.label for result in self.results):
            entries = [
                {"model": r.configuration.model, "config": r.config_name, "commit": label, "metrics": self.values(r)}
                for r in self.results
                if r.commit.label == label
            ]
            folder = output / f"commit={label}"
            if folder.is_dir():
                write_json(folder / "summary.json", {"format_version": FORMAT_VERSION, "results": entries})
        write_json(output / "summary.json", self.to_dict())
        write_text(output / "summary.csv", self.to_csv())
        write_text(output / "summary.md", self.to_markdown())


def format_change(change: Change) -> str:
    """Such as `+3.1 % ± 0.4`, in brackets if it is within the noise."""
    if change.noise is None:
        return f"{change.percent:+.1f} % ?"
    text = f"{change.percent:+.1f} % ± {change.noise:.1f}"
    return text if change.beyond_noise else f"({text})"
