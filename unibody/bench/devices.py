"""What the processor, the memory and the GPU do while something runs: one look, or many by a thread in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil

from unibody.bench.gpus import Gpus


class Sample(NamedTuple):
    """A look at the devices; None is what cannot be seen here."""

    cpu_util: float | None  # per cent of one core, of the processes that are watched
    mem_megabytes: float | None  # their resident sets, in 10^6 bytes
    gpu_util: float | None
    gpu_mem_megabytes: float | None


class Devices:
    """Watches one process with all that it starts, and the GPUs; `not_measured` says what it cannot see and why."""

    def __init__(self, pid: int | None = None) -> None:
        self.process = psutil.Process(pid)
        self.not_measured: dict[str, str] = {}
        self._spent: dict[int, float] = {}
        self._time = time.perf_counter()
        self._gpus = Gpus()
        if self._gpus.missing:
            self.not_measured["gpu_util, gpu_mem_megabytes"] = self._gpus.missing
        self.look()

    def look(self) -> Sample:
        """The present state; the CPU's is the mean since the last look."""
        memory, spent = 0, {}
        for process in self._family():
            try:
                with process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        now = time.perf_counter()
        used = sum(max(0.0, value - self._spent.get(pid, 0.0)) for pid, value in spent.items())
        cpu = 100 * used / (now - self._time) if now > self._time and spent else None
        self._spent, self._time = spent, now
        return Sample(cpu, memory / 1e6 or None, *self._look_at_gpus())

    def _family(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return []

    def _look_at_gpus(self) -> tuple[float | None, float | None]:
        """Mean utilisation in per cent, and memory of all GPUs in MB."""
        if not self._gpus.handles:
            return None, None
        used = self._ask("gpu_util", lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        held = self._ask("gpu_mem_megabytes", lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        return sum(used) / len(used) if used else None, sum(held) / 1e6 if held else None

    def _ask(self, name: str, question: Callable[[Any, Any], Any]) -> list[Any]:
        answers, refused = self._gpus.ask(question)
        if refused:
            self.not_measured[name] = refused
        return answers


class Sampler:
    """A thread that looks at the devices every `interval` seconds and hands each sample on; measures what that costs."""

    def __init__(self, devices: Devices, keep: Callable[[Sample], None], interval: float) -> None:
        if interval <= 0:
            raise ValueError(f"interval {interval}: give the seconds between two samples, such as 0.05")
        self.devices, self.keep, self.interval = devices, keep, interval
        self.samples, self.cpu_seconds, self.error = 0, 0.0, ""
        self._stop = threading.Event()
        self._start, self._began = time.perf_counter(), time.time()
        self._thread = threading.Thread(target=self._run, name="unibody-bench-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.interval):
                self.keep(self.devices.look())
                self.samples += 1
        except Exception as error:  # noqa: BLE001  what is measured goes on; the cost says that sampling has ended
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.cpu_seconds = time.thread_time()

    def stop(self) -> dict[str, Any]:
        """Ends the thread; what it cost."""
        self._stop.set()
        self._thread.join()
        seconds = time.perf_counter() - self._start
        cost: dict[str, Any] = {"start": self._began, "seconds": seconds}
        cost |= {"samples": self.samples, "cpu_seconds": self.cpu_seconds}
        cost["cpu_percent"] = 100 * self.cpu_seconds / seconds
        return cost | ({"error": self.error} if self.error else {})
