"""The energy of a piece of work: from counters, from codecarbon where it is installed, and why there is none where it is not."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest

from unibody.bench import Meter
from unibody.bench.energy import Energy

JOULES = 3.6e6  # in a kWh


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, one with a memory zone and one with a zone that is part of it; all counters near their ends."""
    monkeypatch.setattr("unibody.bench.energy.RAPL", tmp_path)
    monkeypatch.setattr("unibody.bench.energy.gpu_millijoules", lambda gpus: (None, "no GPU"))
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:1": "core",
    }
    for zone, name in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name + "\n")
        (tmp_path / zone / "energy_uj").write_text("9000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def test_counters(counters: Path) -> None:
    """One of the counters starts again from zero."""
    with Energy() as energy:
        (counters / "intel-rapl:0/energy_uj").write_text("9500000")  # 0.5 J
        (counters / "intel-rapl:1/energy_uj").write_text("500000")  # 1.5 J, over the end of the counter
        (counters / "intel-rapl:0:0/energy_uj").write_text("9100000")  # 0.1 J
    found = energy.report(runs=2)
    assert found is not None and found.pop("source") == "RAPL" and found.pop("unit") == "kWh"
    joules = {name: None if value is None else value * JOULES for name, value in found.items()}
    assert joules == {"cpu": pytest.approx(1.0), "ram": pytest.approx(0.05), "gpu": None, "total": pytest.approx(1.05)}
    assert energy.not_measured["energy.gpu"] == "no GPU"


def test_counters_are_not_for_everyone(counters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they may not be read, as for others than root on Linux, there is no figure, and the reason is told."""
    for zone in counters.iterdir():
        (zone / "energy_uj").unlink()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    phase = Meter(iterations=2, warmup_runs=0).measure(lambda: work(0.001), 1, "tasks/s")
    assert phase["energy"] is None and phase["efficiency"] is None
    reason = phase["not_measured"]["energy.cpu, energy.ram"]
    assert (
        reason
        == f"{counters} has no counters that may be read, and codecarbon is not installed: pip install 'unibody[codecarbon]'"
    )


def test_short_work_is_repeated(counters: Path) -> None:
    """A counter that goes on by steps says nothing of a millisecond, so the work is done again for a while."""
    calls = 0

    def run() -> None:
        nonlocal calls
        calls += 1
        work(0.01)
        file = counters / "intel-rapl:0/energy_uj"
        file.write_text(str(int(file.read_text()) + 2000))  # 0.2 W of ten milliseconds

    found = Meter(warmup_runs=0, iterations=2, memory=False).measure(run, 7, "tokens/s")
    assert calls > 8  # two for the times, and two if it were not repeated
    assert found["energy"]["cpu"] * JOULES == pytest.approx(0.002)
    assert found["efficiency"] == {"unit": "tokens/kWh", "value": pytest.approx(7 / found["energy"]["total"])}


codecarbon = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None,
    reason="codecarbon is not installed: pip install 'unibody[codecarbon]'",
)


@codecarbon
@pytest.mark.slow
def test_codecarbon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package estimates power from the load: twice the time takes about twice the energy, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unibody.bench.energy.RAPL", tmp_path)
    found: dict[float, Any] = {}
    for seconds in (0.0, 2.0, 4.0):  # the first one finds out what the machine is
        with Energy() as energy:
            assert energy.source == "codecarbon" and energy.measurable
            work(seconds)
        found[seconds] = energy.report()
        assert found[seconds]["source"] == "codecarbon"
        assert "energy.cpu, energy.ram" not in energy.not_measured
    watts = {seconds: found[seconds]["total"] * JOULES / seconds for seconds in (2.0, 4.0)}
    assert 1 < watts[4.0] < 2000
    assert watts[2.0] == pytest.approx(watts[4.0], rel=0.5)
    assert found[4.0]["total"] == pytest.approx(found[4.0]["cpu"] + found[4.0]["ram"] + (found[4.0]["gpu"] or 0))
    assert list(tmp_path.iterdir()) == []


@codecarbon
def test_codecarbon_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It swallows its own errors; then there is no figure, and the measurement goes on."""
    import codecarbon

    def fail(*_: object, **__: object) -> None:
        raise OSError("no sensors")

    monkeypatch.setattr("unibody.bench.energy.RAPL", tmp_path)
    monkeypatch.setattr("unibody.bench.energy.gpu_millijoules", lambda gpus: (None, "no GPU"))
    monkeypatch.setattr(codecarbon.emissions_tracker.BaseEmissionsTracker, "__init__", fail)
    phase = Meter(warmup_runs=0, iterations=1).measure(lambda: work(0.001))
    assert phase["energy"] is None
    assert (
        phase["not_measured"]["energy.cpu, energy.ram"] == "codecarbon could not start; what it says is in the output"
    )
