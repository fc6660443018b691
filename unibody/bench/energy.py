"""The energy that a piece of work took: the processor's own counters (RAPL), the GPU's, or codecarbon's estimate."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

RAPL = Path("/sys/class/powercap")
JOULES = 3.6e6  # in a kWh


class Energy:
    """Measures the block that it is entered for; `kwh` holds cpu, ram, gpu and total, and None for what is not counted.

    The counters are of whole devices, so other programs on them count too. `measurable` is whether there are any.
    """

    def __init__(self) -> None:
        self._zones, self._gpu = find_zones(), gpu_millijoules()
        self._has_codecarbon = not self._zones and importlib.util.find_spec("codecarbon") is not None
        self.measurable = bool(self._zones or self._gpu or self._has_codecarbon)
        self.kwh: dict[str, float | None] = {"cpu": None, "ram": None, "gpu": None, "total": None}
        self.not_measured: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._counters = {zone: read_microjoules(zone) for zone in self._zones}
        self._estimate = start_codecarbon() if self._has_codecarbon else None
        self._before = self._gpu() if self._gpu else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counters:
            self.kwh["cpu"] = self._consumed("package") / 1e6 / JOULES
            ram = self._consumed("dram") / 1e6 / JOULES
            self.kwh["ram"] = ram if any(read_name(zone) == "dram" for zone in self._counters) else None
        elif self._estimate is not None:
            self._estimate.stop()
            data = self._estimate.final_emissions_data
            self.kwh |= {"cpu": data.cpu_energy, "ram": data.ram_energy}
        else:
            self.not_measured["energy.cpu, energy.ram"] = (
                f"{RAPL} has no counters that may be read, and codecarbon is not installed"
            )
        if self._gpu:
            self.kwh["gpu"] = (self._gpu() - self._before) / 1e3 / JOULES
        else:
            self.not_measured["energy.gpu"] = "no GPU counts its energy through pynvml"
        known = [value for value in self.kwh.values() if value is not None]
        self.kwh["total"] = sum(known) if known else None

    def report(self, runs: int = 1) -> dict[str, Any] | None:
        """The energy of one of so many runs; None if nothing could be measured."""
        if self.kwh["total"] is None:
            return None
        return {"unit": "kWh", **{key: None if value is None else value / runs for key, value in self.kwh.items()}}

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
    """A running tracker of codecarbon that writes nothing."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="error")
    tracker.start()
    return tracker


def gpu_millijoules() -> Callable[[], int] | None:
    """A function that reads how much all GPUs have consumed; None where none of them says so."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        if not handles:
            return None
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0])
    except Exception:  # noqa: BLE001  no package, no driver, no device, or one that does not count: each has its own class
        return None
    return lambda: sum(int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles)
