"""What is seen of a process, and of GPUs through pynvml."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from unibody.bench import MetricsRecorder
from unibody.bench.devices import Devices
from unibody.bench.machine import describe_machine


def gpus(utilisations: list[int], memory: int) -> types.ModuleType:
    """A pynvml that knows so many GPUs, with the functions of the real one that are asked."""
    module = types.ModuleType("pynvml")
    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: len(utilisations),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda index: f"GPU {index}",
        "nvmlDeviceGetUtilizationRates": lambda index: types.SimpleNamespace(gpu=utilisations[index]),
        "nvmlDeviceGetMemoryInfo": lambda index: types.SimpleNamespace(used=memory, total=2 * memory),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    return module


def test_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pynvml as real

    fake = gpus([50, 100], 3_000_000_000)
    assert all(hasattr(real, name) for name in vars(fake) if name.startswith("nvml"))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    devices = Devices()
    assert devices.look()[2:] == (75.0, 6000.0)
    assert devices.not_measured == {}
    machine = describe_machine()
    assert (machine["gpu"], machine["gpu_count"], machine["gpu_vram_mb"]) == (["GPU 0", "GPU 1"], 2, 12000.0)
    with MetricsRecorder(tmp_path / "r.sqlite") as recorder:
        benchmark = recorder.initialise_benchmark({})
        with recorder.sampling(benchmark, interval=0.01):
            time.sleep(0.1)
        recorder.flush()
        assert {row["gpu_util"] for row in recorder.database.device_measurements(benchmark)} == {75.0}


def test_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    devices = Devices()
    assert devices.look()[2:] == (None, None)
    assert devices.not_measured == {"gpu_util, gpu_mem_megabytes": "pynvml is not installed: pip install nvidia-ml-py"}


BUSY = "import time\nheld = bytearray(150_000_000)\nend = time.time() + 20\nprint(flush=True)\nwhile time.time() < end: pass"


def test_other_process() -> None:
    """The processor and the memory of another process and its children; nothing of one that has ended."""
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        devices = Devices(process.pid)
        children = devices.process.children(recursive=True)
        time.sleep(1)
        busy = devices.look()
        assert busy.mem_megabytes is not None and busy.mem_megabytes > 150
        assert busy.cpu_util is not None and 5 < busy.cpu_util < 130
        for child in [devices.process, *children]:
            child.kill()
    assert devices.look()[:2] == (None, None)


def test_the_cost_is_measured(tmp_path: Path) -> None:
    """A sampler that does more work costs more, and says so."""
    with MetricsRecorder(tmp_path / "r.sqlite") as recorder:
        benchmark = recorder.initialise_benchmark({})
        costs = {}
        for interval in (0.002, 0.25):
            with recorder.sampling(benchmark, interval) as cost:
                time.sleep(1)
            costs[interval] = cost
    assert costs[0.002]["samples"] > 10 * costs[0.25]["samples"]
    assert costs[0.002]["cpu_percent"] > 3 * costs[0.25]["cpu_percent"]
    assert costs[0.25]["cpu_percent"] < 5
