"""The most memory that a piece of work held: the process's resident set, and what torch and the GPU count."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

RESET, STATUS = (
    Path("/proc/self/clear_refs"),
    Path("/proc/self/status"),
)  # Linux keeps the peak, and forgets it on request
INTERVAL = 0.002  # seconds between two looks where the system does not keep the peak
FIELDS = ("max_ram", "max_global_vram", "max_process_vram", "max_reserved", "max_allocated")


class PeakMemory:
    """Measures the block that it is entered for; `report()` has the peaks in MB (10^6 bytes), None where not measured.

    On Linux the kernel keeps the peak of the resident set; elsewhere a thread samples it through psutil.
    """

    def __init__(self) -> None:
        self.not_measured: dict[str, str] = {}
        self.peaks: dict[str, float | None] = dict.fromkeys(FIELDS)

    def __enter__(self) -> Self:
        self._cuda = cuda()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        self._kernel = reset_peak()
        if not self._kernel:
            self._stop, self._sampled = threading.Event(), 0
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kernel:
            self.peaks["max_ram"] = read_peak() / 1e6
        else:
            self._stop.set()
            self._thread.join()
            self.peaks["max_ram"] = self._sampled / 1e6 or None
            if not self._sampled:
                self.not_measured["memory.max_ram"] = "psutil is not installed: pip install psutil"
        if self._cuda is None:
            self.not_measured["memory.max_*_vram, max_reserved, max_allocated"] = "no CUDA device is in use"
            return
        free, total = self._cuda.mem_get_info()
        self.peaks["max_global_vram"] = (total - free) / 1e6  # what is held at the end, by all processes
        self.peaks["max_reserved"] = self._cuda.max_memory_reserved() / 1e6
        self.peaks["max_allocated"] = self._cuda.max_memory_allocated() / 1e6
        self.not_measured["memory.max_process_vram"] = "torch does not tell it; see max_reserved"

    def report(self) -> dict[str, Any]:
        return {"unit": "MB", **self.peaks}

    def _sample(self) -> None:
        try:
            import psutil
        except ImportError:
            return
        process = psutil.Process()
        while True:
            self._sampled = max(self._sampled, process.memory_info().rss)
            if self._stop.wait(INTERVAL):
                return


def cuda() -> Any:
    """torch.cuda if this process has begun to use a device; None otherwise, without importing torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def synchronise() -> None:
    """Waits for what the GPU has still to do, so that a clock read afterwards covers it."""
    if (device := cuda()) is not None:
        device.synchronize()


def reset_peak() -> bool:
    """Makes the kernel forget the peak of the resident set; False where it cannot."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def read_peak() -> int:
    """The peak of the resident set since it was reset, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
