"""benchmark_report.json: the rounds of one configuration as one report, with the field names of optimum-benchmark; and files.

A report is {phase: {latency, throughput, memory, energy, efficiency, …}}. What was not measured is None, and `not_measured` of the
phase says why.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unibody.bench.errors import BenchmarkError
from unibody.bench.timings import describe_times

FORMAT_VERSION = 1
TIMES = ("latency", "cpu_time")
Report = dict[str, Any]


def merge_rounds(rounds: Sequence[Report]) -> Report:
    """The report over all values of several rounds; `latency.rounds` says how many values are of each."""
    return {phase: merge_phase([report[phase] for report in rounds if phase in report]) for phase in rounds[0]}


def merge_phase(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, merged = rounds[0], dict(rounds[0])
    for name in TIMES:
        if first.get(name):
            values = [value for phase in rounds for value in phase[name]["values"]]
            merged[name] = describe_times(values) | {"rounds": [len(phase[name]["values"]) for phase in rounds]}
    volume = phase_volume(first)
    if volume is not None and merged["latency"]["mean"]:
        merged["throughput"] = {**first["throughput"], "value": volume / merged["latency"]["mean"]}
    if first.get("memory"):
        merged["memory"] = combine([phase["memory"] for phase in rounds], max)
    if first.get("energy"):
        merged["energy"] = combine([phase["energy"] for phase in rounds], statistics.fmean)
        merged["efficiency"] = combine(
            [phase["efficiency"] for phase in rounds if phase["efficiency"]], statistics.fmean
        )
    return merged


def combine(parts: Sequence[dict[str, Any]], how: Any) -> dict[str, Any] | None:
    """The numbers of several dictionaries of one form as one; what is no number is that of the first."""
    if not parts:
        return None
    numbers = {key: [part[key] for part in parts if isinstance(part[key], int | float)] for key in parts[0]}
    return {key: how(numbers[key]) if numbers[key] else value for key, value in parts[0].items()}


def phase_volume(phase: dict[str, Any]) -> float | None:
    """How many tokens or samples one run of the phase deals with."""
    throughput, latency = phase.get("throughput"), phase.get("latency")
    if not throughput or not latency or not throughput.get("value"):
        return None
    return float(throughput["value"] * latency["mean"])


def find_metric(report: Report, metric: str) -> Any:
    """The number at a dotted place, such as `decode.latency.mean`; None if there is none."""
    found: Any = report
    for name in metric.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def list_metrics(report: Report) -> list[str]:
    """Every dotted place of a report that holds a number."""
    found = []

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{place}.{key}" if place else key)
        elif isinstance(value, int | float) and not isinstance(value, bool) and "." in place:
            found.append(place)

    walk(report, "")
    return found


def metric_unit(report: Report, metric: str) -> str:
    """The unit of a metric, such as `s` or `tokens/s`; empty where it has none."""
    phase, _, rest = metric.partition(".")
    measure, _, name = rest.partition(".")
    if name in ("stdev_",):
        return "%"
    if name == "count":
        return ""
    unit = ((report.get(phase) or {}).get(measure) or {}).get("unit", "")
    return str(unit) or {"bits_per_weight": "bits"}.get(name, "")


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at once; it is never half written."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces the file at once. BenchmarkError: it cannot be written; what was there stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BenchmarkError(
            f"{path} cannot be written ({error.strerror or error}): what was written before is kept"
        ) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file. BenchmarkError: it cannot be read, or is of a newer format."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read ({error})") from error
    version = value.get("format_version", FORMAT_VERSION) if isinstance(value, dict) else FORMAT_VERSION
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BenchmarkError(
            f"{path} has format_version {version}, and this is unibody for {FORMAT_VERSION}: update unibody"
        )
    return value
