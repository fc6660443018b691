"""An example of results of every kind, for the page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unibody.bench.configuration import Configuration
from unibody.bench.measures import report_times
from unibody.bench.results import Result
from unibody.bench.summary import Summary
from unibody.bench.worktrees import Commit

MACHINE = {
    "cpu": "AMD EPYC", "cpu_count": 2, "cpu_ram_mb": 25000.0, "system": "Linux", "machine": "x86_64", "python_version": "3.11.7",
    "gpu": [], "gpu_count": 0, "gpu_vram_mb": None, "threads": "1", "packages": {"torch": "2.13.0+cpu"},
}  # fmt: skip


def example(subject: str = "Faster", name: str = "inference") -> Summary:
    """Two backends at two commits, one of which fails, and three quantizers with their perplexity."""
    first = Commit("main", "a" * 40, "The start", "2026-11-20T12:00:00+00:00", None)
    second = Commit("HEAD", "b" * 40, subject, "2026-11-27T12:00:00+00:00", None)
    results = [
        measured(first, "backend=unibody", 0.020), measured(first, "backend=transformers", 0.022),
        measured(second, "backend=transformers", 0.026), measured(second, "backend=torch", 0.012),
    ]  # fmt: skip
    failed = measured(second, "backend=unibody", 0.02)
    failed.rounds, failed.error = (
        [],
        {"message": "ModuleNotFoundError: No module named 'gone'", "traceback": "Traceback\n…"},
    )
    quality = [quantized(first, *one) for one in (("none", 16.0, 21.3), ("gptq", 4.36, 24.2), ("rtn_3", 3.3, 78.0))]
    told = {
        "name": name, "command": "unibody bench --config-dir benchmarks/config --config-name inference --commit main,HEAD",
        "created": "2026-11-28T00:00:00+00:00", "machine": MACHINE, "environments": {"unibody": MACHINE},
    }  # fmt: skip
    return Summary([*results, failed, *quality], (), None, told)


def measured(commit: Commit, name: str, seconds: float) -> Result:
    rounds = []
    for number in range(3):
        times = [(seconds * (1 + 0.02 * math.sin(7 * i + number)),) * 2 for i in range(5)]
        decode = report_times(times, 31, "tokens/s")
        decode["memory"] = {"unit": "MB", "max_ram": 240.0 + 1000 * seconds + number}
        decode["not_measured"] = {"energy.gpu": "no GPU counts its energy through pynvml"}
        rounds.append({"decode": decode})
    result = result_of(commit, name, rounds)
    result.timeline = [
        {
            "round": 1 + i // 40, "seconds": 0.05 * (i % 40), "cpu_util": 98.0 + i % 3,
            "mem_megabytes": 250 * (1 - math.exp(-(i % 40) / 8)) + 1000 * seconds, "gpu_util": None, "gpu_mem_megabytes": None,
        }
        for i in range(80)
    ]  # fmt: skip
    result.sampling = [{"samples": 40, "cpu_percent": 0.4}]
    return result


def quantized(commit: Commit, name: str, bits: float, perplexity: float) -> Result:
    phase = report_times([(3.0, 3.0)], 2048, "tokens/s") | {
        "quality": {"perplexity": perplexity, "bits_per_weight": bits}
    }
    return result_of(commit, f"quantizer={name}", [{"perplexity": phase}])


def result_of(commit: Commit, name: str, rounds: list[Any]) -> Result:
    model = "smollm2" if "quantizer" in name else "llama_135m"
    values = {"model": {"name": model}, "scenario": {}, "backend": {"name": "unibody"}, "quantizer": {}}
    return Result(commit, Configuration(name, values), Path(), rounds)
