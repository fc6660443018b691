"""Benchmarks of models, quantizers, kernels and the compiler: `unibody bench`, and its parts for programs of one's own.

Importing it imports nothing else; MetricsRecorder needs `unibody[benchmark]`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibody.bench.errors import BenchmarkError
    from unibody.bench.measures import Meter
    from unibody.bench.recorder import MetricsRecorder
    from unibody.bench.registry import register_backend, register_scenario
    from unibody.bench.results import read_results

__all__ = ["BenchmarkError", "Meter", "MetricsRecorder", "read_results", "register_backend", "register_scenario"]

_PLACES = {
    "BenchmarkError": "errors",
    "Meter": "measures",
    "MetricsRecorder": "recorder",
    "read_results": "results",
    "register_backend": "registry",
    "register_scenario": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("sqlalchemy", "psutil", "hydra", "omegaconf"):
            raise
        remedy = "pip install 'unibody[benchmark]'"
        raise ImportError(f"{__name__}.{name} needs {error.name}, which is not installed: {remedy}") from error
