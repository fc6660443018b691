"""The energy that a piece of work took: the processor's own counters (RAPL), the GPU's, or codecarbon's estimate."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unibody.bench.gpus import Gpus

RAPL = Path("/sys/class/powercap")
JOULES = 3.6e6  # in a kWh
LEAST_SECONDS = 1.0  # of work: counters and estimates are brought up to date some times a second


class Energy:
    """Measures the block that it is entered for; `kwh` holds cpu, ram, gpu and total, and None for what is not counted.

    The counters are of whole devices, so other programs on them count too. `measurable` is whether there are any, `source` is where
    the figures of the processor and the memory come from.
    """

    def __init__(self) -> None:
        self._zones, self._gpus = find_zones(), Gpus()
        self._has_codecarbon = not self._zones and importlib.util.find_spec("codecarbon") is not None
        counts = gpu_millijoules(self._gpus)[0] is not None
        self.measurable = bool(self._zones or counts or self._has_codecarbon)
        self.source = "RAPL" if self._zones else "codecarbon" if self._has_codecarbon else None
        self.kwh: dict[str, float | None] = {"cpu": None, "ram": None, "gpu": None, "total": None}
        self.not_measured: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._counters = {zone: read_microjoules(zone) for zone in self._zones}
        self._estimate = start_codecarbon() if self._has_codecarbon else None
        self._before, _ = gpu_millijoules(self._gpus)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        after, refused = gpu_millijoules(self._gpus)
        if self._counters:
            self.kwh["cpu"] = self._consumed("package") / 1e6 / JOULES
            ram = self._consumed("dram") / 1e6 / JOULES
            self.kwh["ram"] = ram if any(read_name(zone) == "dram" for zone in self._counters) else None
        elif self._estimate is not None:
            self._estimate.stop()
            data = self._estimate.final_emissions_data
            share = seconds / data.duration  # it goes on for a moment while it stops
            self.kwh |= {"cpu": data.cpu_energy * share, "ram": data.ram_energy * share}
        elif self._has_codecarbon:
            self.not_measured["energy.cpu, energy.ram"] = "codecarbon could not start; what it says is in the output"
        else:
            self.not_measured["energy.cpu, energy.ram"] = (
                f"{RAPL} has no counters that may be read, and codecarbon is not installed: pip install 'unibody[codecarbon]'"
            )
        if self._before is not None and after is not None:
            self.kwh["gpu"] = (after - self._before) / 1e3 / JOULES
        if refused:
            self.not_measured["energy.gpu"] = refused
        known = [value for value in self.kwh.values() if value is not None]
        self.kwh["total"] = sum(known) if known else None

    def report(self, runs: int = 1) -> dict[str, Any] | None:
        """The energy of one of so many runs; None if nothing could be measured."""
        if self.kwh["total"] is None:
            return None
        each = {key: None if value is None else value / runs for key, value in self.kwh.items()}
        return {"unit": "kWh", **each, "source": self.source}

    def _consumed(self, prefix: str) -> float:
        """Microjoules of the zones of one kind; a counter that has started again from zero is followed over its end."""
        total = 0.0
        for zone, before in self._counters.items():
            if read_name(zone).startswith(prefix):
                spent = read_microjoules(zone) - before
                total += spent if spent >= 0 else spent + int((zone / "max_energy_range_uj").read_text())
        return total


def find_zones() -> list[Path]:
    """The zones of RAPL that may be read: packages, and the memory inside of them."""
    found = []
    for zone in sorted(RAPL.glob("intel-rapl:*")):
        try:
            read_microjoules(zone)
        except (OSError, ValueError):
            continue
        if read_name(zone).startswith(("package", "dram")):
            found.append(zone)
    return found


def read_name(zone: Path) -> str:
    return (zone / "name").read_text().strip()


def read_microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())


def start_codecarbon() -> Any:
    """A running tracker of codecarbon that writes no file and asks no network; None if it could not start.

    It is told a country, because offline it wants one for the emissions; the energy does not depend on it.
    """
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.emissions_tracker import BaseEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it tells of itself before it heeds log_level
    known = inspect.signature(BaseEmissionsTracker.__init__).parameters
    silent: dict[str, Any] = {"output_methods": []} if "output_methods" in known else {"save_to_file": False}
    tracker = OfflineEmissionsTracker(country_iso_code="USA", log_level="error", **silent)
    tracker.start()
    running = getattr(tracker, "_start_time", None) is not None  # it logs its errors, and raises none
    return tracker if running else None


def gpu_millijoules(gpus: Gpus) -> tuple[int | None, str]:
    """How much the GPUs have consumed that count it, and why others do not; None where none of them does."""
    found, refused = gpus.ask(lambda nvml, gpu: int(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)))
    return sum(found) if found else None, refused
