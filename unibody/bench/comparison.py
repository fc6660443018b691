"""How much a metric has changed between two reports, and whether that is more than the measurement's noise.

The noise is estimated by resampling (Efron and Tibshirani, An Introduction to the Bootstrap, 1993): rounds are drawn with
replacement, the same for both sides because both took turns, then values within each round. The middle 95 per cent of the changes
found so are the interval, widened by √(n / (n − 1)) for n rounds (or values, if there is one round), because few of them vary less
than many. A change is beyond the noise if the interval does not hold zero.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unibody.bench.report import TIMES, Report, find_metric, phase_volume
from unibody.bench.timings import percentile

DRAWS, FEWEST = 1000, 200
VALUES_DRAWN = 200_000  # of one comparison: long lists are drawn less often
LEAST_VALUES = 5  # of each side, for less no noise can be told
STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "p50": statistics.median,
    "p90": lambda values: percentile(values, 90),
    "p95": lambda values: percentile(values, 95),
    "p99": lambda values: percentile(values, 99),
    "total": sum,
}
MORE_IS_BETTER = ("throughput", "efficiency")


@dataclass(frozen=True)
class Change:
    """From one report to another; `percent`, `noise` and `interval` are in per cent of what was before."""

    metric: str
    before: float
    after: float
    percent: float
    noise: float | None  # half the width of the interval; None: too few values to tell
    interval: list[float] | None
    beyond_noise: bool | None
    worse: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_regression(self, percent: float) -> bool:
        """Whether it is for the worse by more than that, and by more than the noise if that is known."""
        return self.worse and abs(self.percent) > percent and self.beyond_noise is not False


def compare(
    before: Report, after: Report, metric: str, each: tuple[Sequence[Report], Sequence[Report]] | None = None
) -> Change | None:
    """The change of a metric; None where one side does not have it. `each` holds the reports of the rounds of both sides."""
    old, new = find_metric(before, metric), find_metric(after, metric)
    if old is None or new is None or not old:
        return None
    percent = 100 * (new / old - 1)
    worse = (percent < 0) == (metric.split(".")[1] in MORE_IS_BETTER) and percent != 0
    interval = estimate_interval(
        samples(before, metric, each[0] if each else ()), samples(after, metric, each[1] if each else ())
    )
    if interval is None:
        return Change(metric, old, new, percent, None, None, None, worse)
    low, high = interval
    return Change(metric, old, new, percent, (high - low) / 2, [low, high], low > 0 or high < 0, worse)


@dataclass(frozen=True)
class Samples:
    """The values that a metric is made of, by round, and how."""

    rounds: list[list[float]]
    statistic: Callable[[Sequence[float]], float]

    def count(self) -> int:
        return sum(map(len, self.rounds))


def samples(report: Report, metric: str, rounds: Sequence[Report]) -> Samples:
    """Times for what is computed from times; otherwise one value for each round."""
    phase, measure, name = [*metric.split("."), "", ""][:3]
    found = report[phase]
    if measure in TIMES and name in STATISTICS:
        return Samples(by_round(found[measure]), STATISTICS[name])
    if metric.endswith("throughput.value") and found.get("latency"):
        volume = phase_volume(found) or 0.0
        return Samples(by_round(found["latency"]), lambda values: volume / statistics.fmean(values))
    each = [value for value in (find_metric(report, metric) for report in rounds) if value is not None]
    return Samples([[value] for value in each], statistics.fmean)


def by_round(times: dict[str, Any]) -> list[list[float]]:
    """The values of each round; all of one where the report does not tell rounds apart."""
    values, start, rounds = times["values"], 0, []
    for count in times.get("rounds") or [len(values)]:
        rounds.append(values[start : start + count])
        start += count
    return rounds


def estimate_interval(before: Samples, after: Samples) -> tuple[float, float] | None:
    """The middle 95 per cent of the resampled changes, in per cent; None for too few values."""
    if min(before.count(), after.count()) < LEAST_VALUES:
        return None
    draw, changes = random.Random(0), []
    paired = len(before.rounds) == len(after.rounds)
    for _ in range(max(FEWEST, min(DRAWS, VALUES_DRAWN // (before.count() + after.count())))):
        first = draw.choices(range(len(before.rounds)), k=len(before.rounds))
        second = first if paired else draw.choices(range(len(after.rounds)), k=len(after.rounds))
        old, new = resample(draw, before, first), resample(draw, after, second)
        if old:
            changes.append(100 * (new / old - 1))
    if not changes:
        return None
    count = min(len(side.rounds) if len(side.rounds) > 1 else side.count() for side in (before, after))
    middle, wider = percentile(changes, 50), math.sqrt(count / (count - 1))
    low, high = (middle + wider * (percentile(changes, end) - middle) for end in (2.5, 97.5))
    return low, high


def resample(draw: random.Random, found: Samples, chosen: Sequence[int]) -> float:
    values: list[float] = []
    for index in chosen:
        values += draw.choices(found.rounds[index], k=len(found.rounds[index]))
    return found.statistic(values)
