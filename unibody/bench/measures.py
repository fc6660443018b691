"""Timing with warm-up, and the report of one phase in the field's own names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unibody.bench.energy import LEAST_SECONDS, Energy
from unibody.bench.memory import PeakMemory, synchronise
from unibody.bench.timings import describe_times

Times = list[tuple[float, float]]  # wall and CPU seconds of each run


@dataclass
class Meter:
    """How a scenario measures: so many runs after so many that do not count, and for at least so many seconds.

    Times are taken first, with nothing else going on; memory and energy come from further runs.
    """

    warmup_runs: int = 2
    iterations: int = 10
    duration: float = 0.0  # seconds
    memory: bool = True
    energy: bool = True
    not_measured: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.warmup_runs < 0 or self.duration < 0:
            raise ValueError(
                f"iterations {self.iterations}, warmup_runs {self.warmup_runs} and duration {self.duration}: "
                "give at least 1, 0 and 0"
            )

    def repeat(self, run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> list[Any]:
        """What each counted run returned; `prepare` goes before each run."""
        for _ in range(self.warmup_runs):
            prepare()
            run()
        start = time.perf_counter()
        results: list[Any] = []
        while len(results) < self.iterations or time.perf_counter() - start < self.duration:
            prepare()
            results.append(run())
        return results

    def measure(
        self,
        run: Callable[[], Any],
        volume: float = 1,
        unit: str | None = None,
        prepare: Callable[[], Any] = lambda: None,
    ) -> dict[str, Any]:
        """The report of a phase that `run` is; a run deals with `volume` of what `unit` counts, if it has one."""
        return self.report(self.repeat(lambda: time_run(run), prepare), volume, unit, run, prepare)

    def report(
        self,
        times: Times,
        volume: float,
        unit: str | None,
        again: Callable[[], Any] | None = None,
        prepare: Callable[[], Any] = lambda: None,
    ) -> dict[str, Any]:
        """The report of a phase whose times are known; `again` does it once more, for memory and energy."""
        phase = report_times(times, volume, unit)
        if again is not None and self.memory:
            prepare()
            with PeakMemory() as peak:
                again()
                synchronise()
            phase["memory"] = peak.report()
            phase["not_measured"] |= peak.not_measured
        if again is not None and self.energy:
            runs = 0
            with Energy() as energy:
                start = time.perf_counter()
                while energy.measurable and (runs < self.iterations or time.perf_counter() - start < LEAST_SECONDS):
                    prepare()
                    again()
                    runs += 1
                synchronise()
            phase["energy"] = energy.report(max(runs, 1))
            phase["not_measured"] |= energy.not_measured
        return complete(phase, volume)


def time_run(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one run; the CPU's are those of all threads of the process."""
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu


def report_times(times: Sequence[tuple[float, float]], volume: float, unit: str | None) -> dict[str, Any]:
    """The report of a phase of which the times alone are known."""
    walls, cpus = [wall for wall, _ in times], [cpu for _, cpu in times]
    return {
        "memory": None,
        "latency": describe_times(walls),
        "cpu_time": describe_times(cpus),
        "throughput": None
        if unit is None or not sum(walls)
        else {"unit": unit, "value": len(walls) * volume / sum(walls)},
        "energy": None,
        "efficiency": None,
        "not_measured": {},
    }


def complete(phase: dict[str, Any], volume: float) -> dict[str, Any]:
    """The phase with its efficiency, and with the reason for each measure that is null."""
    if phase["throughput"] and phase["energy"] and phase["energy"]["total"]:
        unit = phase["throughput"]["unit"].removesuffix("/s") + "/kWh"
        phase["efficiency"] = {"unit": unit, "value": volume / phase["energy"]["total"]}
    reasons = {
        "throughput": "it is no rate that this phase is about",
        "memory": "part of a longer run, or switched off",
        "energy": "part of a longer run, or switched off",
        "efficiency": "follows from throughput and energy",
    }
    for name, reason in reasons.items():
        if phase[name] is None and not any(key.startswith(name) for key in phase["not_measured"]):
            phase["not_measured"][name] = reason
    return phase
