"""The machine, and the versions of what is measured; not the machine's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from unibody.bench.gpus import Gpus

PACKAGES = (
    *("torch", "transformers", "safetensors", "tokenizers", "numpy", "libcst", "ruff", "unibody"),
    *("accelerate", "bitsandbytes", "compressed-tensors", "torchao", "gptqmodel", "auto-round", "amd-quark", "hqq"),
    *("optimum-quanto", "kernels", "fbgemm-gpu", "triton"),
)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, system, GPUs, threads and versions; sizes in MB, and None for what is not known or installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6 if hasattr(os, "sysconf") else None
    gpus = describe_gpus()
    return {
        "cpu": describe_cpu(),
        "cpu_count": os.cpu_count(),
        "cpu_ram_mb": memory,
        "system": platform.system(),
        "machine": platform.machine(),
        "python_version": platform.python_version(),
        "gpu": [name for name, _ in gpus],
        "gpu_count": len(gpus),
        "gpu_vram_mb": sum(size for _, size in gpus) / 1e6 if gpus else None,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": {name: found for name in PACKAGES if (found := find_version(name)) is not None},
    }


def describe_cpu() -> str:
    """The processor's name, with the family and model that tell apart those whose name is hidden."""
    found = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return found
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    family = f", family {fields['cpu family']}, model {fields['model']}" if "cpu family" in fields else ""
    return fields.get("model name", found) + family


def describe_gpus() -> list[tuple[str, int]]:
    """Name and bytes of memory of each GPU that pynvml tells of."""
    found, _ = Gpus().ask(
        lambda nvml, gpu: (str(nvml.nvmlDeviceGetName(gpu)), int(nvml.nvmlDeviceGetMemoryInfo(gpu).total))
    )
    return found


def find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
