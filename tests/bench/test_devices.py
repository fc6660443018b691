"""What is seen of a process, and of GPUs through pynvml."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.command import environment
from unibody.bench import MetricsRecorder
from unibody.bench.devices import Devices
from unibody.bench.machine import describe_machine

GPUS = """
import json, sys, time
from unibody.bench import MetricsRecorder
from unibody.bench.devices import Devices
from unibody.bench.energy import Energy
from unibody.bench.machine import describe_machine
devices = Devices()
found = {"look": devices.look(), "not_measured": devices.not_measured, "machine": describe_machine()}
with MetricsRecorder(sys.argv[1]) as recorder:
    benchmark = recorder.initialise_benchmark({})
    with recorder.sampling(benchmark, interval=0.01) as cost:
        time.sleep(0.2)
    recorder.flush()
    found["rows"] = [[row["gpu_util"], row["gpu_mem_megabytes"]] for row in recorder.database.device_measurements(benchmark)]
found["cost"] = cost
with Energy() as energy:
    pass
found["energy"] = energy.report()
print(json.dumps(found))
"""


def test_gpus(tmp_path: Path) -> None:
    """The real pynvml over a library in place of the driver's: what one of the GPUs does not tell is left out and named."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler here to make a stand-in for NVIDIA's library")
    source, library = Path(__file__).with_name("nvml.c"), tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    variables = environment() | {"LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", GPUS, str(tmp_path / "r.sqlite")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["look"][2:] == [75.0, 6000.0]
    assert found["not_measured"] == {"gpu_util": "of 1 of 2 GPUs: Not Supported"}
    machine = found["machine"]
    assert machine["gpu"] == ["Imaginary 0", "Imaginary 1"]
    assert (machine["gpu_count"], machine["gpu_vram_mb"]) == (2, 12000.0)
    assert len(found["rows"]) > 2 and all(row == [75.0, 6000.0] for row in found["rows"])
    assert "error" not in found["cost"] and found["cost"]["not_measured"] == found["not_measured"]
    assert found["energy"]["gpu"] * 3.6e6 == pytest.approx(7.2)


def test_no_driver() -> None:
    """pynvml is installed, and finds no driver."""
    if Path("/proc/driver/nvidia").exists():  # asked of the system, not of what is tested
        pytest.skip("there is NVIDIA's driver here")
    devices = Devices()
    assert devices.look()[2:] == (None, None)
    assert devices.not_measured == {
        "gpu_util, gpu_mem_megabytes": "pynvml finds no GPU (NVML Shared Library Not Found)"
    }
    assert describe_machine()["gpu"] == []


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
    assert costs[0.002]["samples"] > 4 * costs[0.25]["samples"]  # a hundred times, were the machine idle
    assert costs[0.002]["cpu_percent"] > 2 * costs[0.25]["cpu_percent"]
    assert costs[0.25]["cpu_percent"] < 5
