"""index.html: the results as one page that needs nothing else, neither a network nor a file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unibody.bench.comparison import MORE_IS_BETTER, samples
from unibody.bench.report import phase_volume, write_text
from unibody.bench.results import Result
from unibody.bench.summary import Summary

HERE = Path(__file__).parent
MOST_POINTS = 300  # of one line, and of the single values that a bar shows


def write_page(summary: Summary, path: Path) -> None:
    """Writes the page."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("page.html.j2").render(
        title=str(summary.told.get("name", "benchmark")),
        data=as_script(page_data(summary)),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        code=[(HERE / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js")],
    )
    write_text(path, text)


def as_script(value: Any) -> str:
    """JSON that may stand inside of a script element, whatever texts it holds."""
    return (
        json.dumps(value, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def page_data(summary: Summary) -> dict[str, Any]:
    """What the page draws: the merged summary, and for each result its single values and its timeline."""
    told = summary.to_dict()
    rows = [
        {
            "model": result.configuration.model,
            "config": result.config_name,
            "commit": result.commit.label,
            "metrics": summary.values(result),
            "values": {metric: single_values(summary.report(result), metric) for metric in summary.metrics},
            "timeline": timeline(result),
            "sampling": result.sampling,
            "not_measured": not_measured(summary.report(result)),
            "failed": result.error is not None,
        }
        for result in summary.results
    ]
    better = {metric: "more" if metric.split(".")[1] in MORE_IS_BETTER else "less" for metric in summary.metrics}
    return {**{key: value for key, value in told.items() if key != "results"}, "better": better, "rows": rows}


def single_values(report: dict[str, Any], metric: str) -> list[float]:
    """The measurements behind a time or a throughput; none behind what is measured once."""
    phase, measure, _ = metric.split(".", 2)
    found = report.get(phase) or {}
    if measure == "throughput" and (volume := phase_volume(found)) is not None:
        values = [volume / value for value in found["latency"]["values"] if value]
    elif measure in ("latency", "cpu_time") and found.get(measure):
        values = [value for round_ in samples(report, f"{phase}.{measure}.p50", ()).rounds for value in round_]
    else:
        return []
    return thin(values)


def timeline(result: Result) -> dict[str, list[float | None]]:
    """Memory and CPU over the seconds of each round."""
    points = thin(result.timeline)
    names = {
        "round": "round",
        "seconds": "seconds",
        "memory": "mem_megabytes",
        "cpu": "cpu_util",
        "gpu": "gpu_mem_megabytes",
    }
    return {short: [point[name] for point in points] for short, name in names.items()}


def not_measured(report: dict[str, Any]) -> dict[str, str]:
    """The reasons for what is null in any phase."""
    found: dict[str, str] = {}
    for phase in report.values():
        found |= phase.get("not_measured") or {}
    return found


def thin(values: Sequence[Any]) -> list[Any]:
    """Every so many of them, if there are more than can be drawn; the last one stays."""
    step = -(-len(values) // MOST_POINTS) or 1
    kept = list(values[::step])
    return kept if not values or kept[-1] is values[-1] else [*kept, values[-1]]
