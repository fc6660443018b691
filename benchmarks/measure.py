"""Timing of rivals in turns within one process, the memory's bandwidth, and files of results."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibody.bench.machine import describe_machine


def take_turns(rivals: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Returns what each rival returned in each round; every other round goes through them backwards.

    One call of each before the first round is not counted: it fills caches and imports what is imported late.
    """
    for run in rivals.values():
        run()
    results: dict[str, list[Any]] = {name: [] for name in rivals}
    for number in range(rounds):
        for name in list(rivals)[:: 1 if number % 2 else -1]:
            results[name].append(rivals[name]())
    return results


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Returns the CPU time that the process spends in `run`, in seconds: other processes hardly disturb it."""
    start = time.process_time()
    run()
    return time.process_time() - start


def run_process(command: Sequence[str], cwd: Path | None = None) -> tuple[float, float, str]:
    """Returns user + system CPU seconds of a process and all that it starts, its wall seconds, and its output."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{process.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, process.stdout


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Returns the median over the rounds of slower / faster: what disturbs a round disturbs both of its sides."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def bandwidth(megabytes: int = 512) -> Callable[[], float]:
    """Returns a function that reads that much memory with torch and returns bytes per CPU second."""
    import torch

    values = torch.ones(megabytes * 2**18)

    def read() -> float:
        return values.nbytes / cpu_seconds(values.sum)

    return read


def write_results(folder: Path | None, name: str, results: Mapping[str, Any]) -> None:
    """Writes FOLDER/NAME.json with the machine's description; nothing without a folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": describe_machine(), **results}, indent=2)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
