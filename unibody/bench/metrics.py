"""The names of metrics: `phase.measure.statistic`, such as `decode.latency.mean`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from unibody.bench.errors import BenchmarkError
from unibody.bench.report import Report, find_metric

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "stdev", "stdev_", "mad", "total", "count")
MEASURES: dict[str, tuple[str, ...]] = {
    "latency": STATISTICS,
    "cpu_time": STATISTICS,
    "throughput": ("value",),
    "memory": ("max_ram", "max_global_vram", "max_process_vram", "max_reserved", "max_allocated"),
    "energy": ("cpu", "ram", "gpu", "total"),
    "efficiency": ("value",),
    "quality": ("perplexity", "bits_per_weight"),
}
USUAL = ("latency.p50", "throughput.value", "memory.max_ram", "quality.perplexity", "quality.bits_per_weight")


def parse_metrics(text: str | None) -> list[str]:
    """The metrics that a list separated by commas names. BenchmarkError: one is none, with the nearest names."""
    metrics = [name.strip() for name in (text or "").split(",") if name.strip()]
    endings = [f"{measure}.{name}" for measure, names in MEASURES.items() for name in names]
    for metric in metrics:
        phase, _, ending = metric.partition(".")
        if ending not in endings:
            known = [f"{ending}.{MEASURES[ending][0]}"] if ending in MEASURES else []
            known = known or difflib.get_close_matches(ending, endings, n=1) or ["latency.mean"]
            raise BenchmarkError(
                f"--metrics {metric}: is it {phase}.{known[0]}? A metric is phase.measure.statistic, as in decode.latency.mean"
            )
    return metrics


def choose_metrics(wanted: Sequence[str], reports: Iterable[Report]) -> list[str]:
    """The metrics that summaries show: those that are wanted, or the usual ones of every phase there is."""
    if wanted:
        return list(wanted)
    found: dict[str, None] = {}
    for report in reports:
        found |= dict.fromkeys(f"{phase}.{name}" for phase in report for name in USUAL)
        found = {
            metric: None
            for metric in found
            if metric.split(".")[0] not in report or find_metric(report, metric) is not None
        }
    return list(found)


def check_phases(wanted: Sequence[str], reports: Sequence[Report]) -> str:
    """What is wrong with a wanted metric whose phase no report has; empty if nothing is."""
    phases = sorted({phase for report in reports for phase in report})
    for metric in wanted:
        phase, _, ending = metric.partition(".")
        if phases and phase not in phases:
            near = difflib.get_close_matches(phase, phases) or phases
            return f"--metrics {metric}: no phase of this name was measured: is it {' or '.join(f'{p}.{ending}' for p in near)}?"
    return ""
