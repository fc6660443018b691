"""Summaries of repeated measurements: mean, percentiles, spread and outliers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

OUTLIER_SCORE = (
    3.5  # modified z-scores beyond it mark outliers (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)
)


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile of the values, between two of them by linear interpolation."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def find_outliers(values: Sequence[float]) -> list[int]:
    """The indices of values that lie far from the median, measured by the median distance from it."""
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values)
    if spread == 0:
        return []
    return [i for i, value in enumerate(values) if 0.6745 * abs(value - middle) / spread > OUTLIER_SCORE]


def describe_times(values: Sequence[float]) -> dict[str, Any]:
    """The times in seconds, and what they come to; `stdev_` is in per cent of the mean. Fields are those of optimum-benchmark,
    whose standard deviation is that of the values themselves (divided by their number).

    `mad` is the median distance from the median; `outliers` are indices of values, which count like all others.
    """
    mean, stdev = statistics.fmean(values), statistics.pstdev(values)
    middle = statistics.median(values)
    return {
        "unit": "s",
        "values": list(values),
        "count": len(values),
        "total": math.fsum(values),
        "mean": mean,
        **{f"p{percent}": percentile(values, percent) for percent in (50, 90, 95, 99)},
        "stdev": stdev,
        "stdev_": 100 * stdev / mean if mean else 0.0,
        "mad": statistics.median(abs(value - middle) for value in values),
        "outliers": find_outliers(values),
    }
