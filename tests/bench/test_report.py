"""Statistics and reports against optimum-benchmark's own, and files that were written once."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibody.bench import BenchmarkError, Meter, read_results
from unibody.bench.comparison import compare
from unibody.bench.measures import report_times
from unibody.bench.memory import PeakMemory
from unibody.bench.report import merge_rounds, metric_unit, read_json
from unibody.bench.summary import Summary
from unibody.bench.tables import format_value
from unibody.bench.timings import describe_times, percentile

RECORDED = Path(__file__).parent / "recorded"
OPTIMUM = RECORDED / "optimum-benchmark-0.5.json"


def test_statistics_are_those_of_optimum_benchmark() -> None:
    """A report that it wrote: what we compute from its values is what it computed."""
    report = json.loads(OPTIMUM.read_text())["report"]
    for phase in report.values():
        ours = describe_times(phase["latency"]["values"])
        for name, value in phase["latency"].items():
            assert ours[name] == (value if name == "unit" else pytest.approx(value, rel=1e-12)), name
    phase = report_times([(value, 0.0) for value in report["forward"]["latency"]["values"]], 64, "samples/s")
    assert phase["throughput"]["value"] == pytest.approx(report["forward"]["throughput"]["value"])
    assert phase.keys() >= report["forward"].keys()


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), rel=1e-9)


def test_outliers_are_marked() -> None:
    values = [1.0, 1.01, 0.99, 1.02, 5.0, 0.98]
    found = describe_times(values)
    assert found["outliers"] == [4]
    assert found["count"] == 6 and found["mean"] == pytest.approx(sum(values) / 6)  # they are marked, not left out
    assert describe_times([2.0, 2.0, 3.0])["outliers"] == []


def test_optimum_benchmark_is_imported(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(OPTIMUM, tmp_path / "run/benchmark.json")
    (found,) = read_results(tmp_path)
    summary = Summary([found], ["forward.latency.mean", "forward.throughput.value"])
    assert summary.to_dict()["results"] == {
        "tei_bert": {
            "backend=py-txi": {
                "optimum-benchmark 0.5.0.dev0": {
                    "forward.latency.mean": 11.329571039485746, "forward.throughput.value": 5.648934083819028,
                }
            }
        }
    }  # fmt: skip
    assert "11.3 s" in summary.to_markdown() and "5.65 samples/s" in summary.to_markdown()


def test_recorded_report() -> None:
    """Results of format 1, as they were written once."""
    (found,) = read_results(RECORDED / "results-1")
    assert found.configuration.model == "tiny_llama"
    assert found.commit.subject == "The start"
    summary = Summary([found], ["prefill.latency.p50", "prefill.memory.max_ram"])
    assert summary.values(found) == {"prefill.latency.p50": 0.003, "prefill.memory.max_ram": 210.5}
    assert read_json(RECORDED / "results-1/benchmark_report.json")["format_version"] == 1


def test_newer_report(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text('{"format_version": 2}')
    with pytest.raises(
        BenchmarkError, match=r"benchmark.json has format_version 2, and this is unibody for 1: update"
    ):
        read_results(tmp_path)
    (tmp_path / "benchmark.json").write_text('{"report"')
    with pytest.raises(BenchmarkError, match=r"benchmark.json cannot be read \(Expecting"):
        read_results(tmp_path)


def report(values: list[float], memory: float = 100.0) -> dict[str, Any]:
    phase = report_times([(value, value) for value in values], 10, "tokens/s")
    return {"decode": phase | {"memory": {"unit": "MB", "max_ram": memory}}}


def test_rounds_are_merged() -> None:
    rounds = [report([1.0, 3.0], 100), report([2.0], 120)]
    found = merge_rounds(rounds)["decode"]
    assert found["latency"]["values"] == [1.0, 3.0, 2.0]
    assert found["latency"]["rounds"] == [2, 1]
    assert found["latency"]["p50"] == 2.0
    assert found["throughput"]["value"] == pytest.approx(5.0)
    assert found["memory"]["max_ram"] == 120
    assert metric_unit({"decode": found}, "decode.latency.stdev_") == "%"


def noisy(factor: float, seed: int, rounds: int = 3, spread: float = 0.05) -> list[dict[str, Any]]:
    """Rounds of measurements, each of which the machine slows by another factor, the same for both sides."""
    shared, own = random.Random(7), random.Random(seed)
    slow = [shared.uniform(1, 1.5) for _ in range(rounds)]
    return [report([factor * each * own.gauss(1, spread) for _ in range(10)]) for each in slow]


def test_noise() -> None:
    """Of 60 comparisons of equals about one in twenty is called a change; a true one is found each time."""
    claims = found = 0
    for seed in range(60):
        before, same, slower = noisy(1, seed), noisy(1, seed + 1000), noisy(1.2, seed + 2000)
        for after, is_change in ((same, False), (slower, True)):
            change = compare(merge_rounds(before), merge_rounds(after), "decode.latency.mean", (before, after))
            assert change is not None and change.noise is not None
            claims += bool(change.beyond_noise) and not is_change
            found += bool(change.beyond_noise) and is_change and change.is_regression(5)
            if is_change:
                assert change.percent == pytest.approx(20, abs=10)
    assert claims <= 6
    assert found == 60


def test_direction() -> None:
    """More of a time or of memory is worse, less of a throughput is."""
    before, after = [report([1.0, 1.1, 0.9, 1.0, 1.0])], [report([2.0, 2.2, 1.8, 2.0, 2.0], 50.0)]
    both = merge_rounds(before), merge_rounds(after)
    verdicts = {}
    for metric in ("decode.latency.mean", "decode.throughput.value", "decode.memory.max_ram"):
        change = compare(*both, metric, (before, after))
        assert change is not None
        verdicts[metric] = (change.worse, change.beyond_noise, change.is_regression(5))
    assert verdicts == {
        "decode.latency.mean": (True, True, True),
        "decode.throughput.value": (True, True, True),
        "decode.memory.max_ram": (False, None, False),
    }
    assert compare(*both, "prefill.latency.mean") is None


def test_peak_memory() -> None:
    """The peak is seen even if it is over before the end, and the peak before the beginning is not."""
    bytearray(400_000_000)
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        bytearray(200_000_000)
    assert before.peaks["max_ram"] is not None and peak.peaks["max_ram"] is not None
    assert 180 < peak.peaks["max_ram"] - before.peaks["max_ram"] < 300


def test_peak_memory_by_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not keep the peak, a thread looks for it."""
    import time

    monkeypatch.setattr("unibody.bench.memory.reset_peak", lambda: False)
    with PeakMemory() as before:
        time.sleep(0.01)
    with PeakMemory() as peak:
        held = bytearray(200_000_000)
        time.sleep(0.1)
    del held
    assert before.peaks["max_ram"] is not None and peak.peaks["max_ram"] is not None
    assert 180 < peak.peaks["max_ram"] - before.peaks["max_ram"] < 300


def test_meter() -> None:
    calls: list[str] = []
    meter = Meter(warmup_runs=2, iterations=3, memory=False, energy=False)
    found = meter.measure(lambda: calls.append("run"), 5, "tokens/s", lambda: calls.append("prepare"))
    assert calls == ["prepare", "run"] * 5
    assert found["latency"]["count"] == found["cpu_time"]["count"] == 3
    assert found["not_measured"]["memory"] == "part of a longer run, or switched off"
    long = Meter(warmup_runs=0, iterations=1, duration=0.05, memory=False, energy=False)
    assert long.measure(lambda: __import__("time").sleep(0.01))["latency"]["count"] >= 4
    with pytest.raises(ValueError, match="iterations 0, warmup_runs 0 and duration 0: give at least 1, 0 and 0"):
        Meter(warmup_runs=0, iterations=0, duration=0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"), (2e-7, "s", "200 ns"), (0.0, "s", "0 ns"), (None, "s", "–"), (1234.5, "tokens/s", "1,234 tokens/s"),
        (4.25, "bits", "4.25 bits"), (21.3, "", "21.3"),
    ],
)  # fmt: skip
def test_numbers_for_people(value: float | None, unit: str, text: str) -> None:
    assert format_value(value, unit) == text
