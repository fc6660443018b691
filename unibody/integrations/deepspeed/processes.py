"""Where DeepSpeed runs: its accelerator, and the processes that it spreads a model over."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from unibody.integrations.availability import require
from unibody.processes import leave_at_exit, stand_alone


def start_deepspeed(backend: str | None = None, timeout: timedelta | None = None) -> Any:
    """The module deepspeed, whose processes are connected: those of the launcher, or this one alone.

    It is imported here for the first time. Without an accelerator it runs on the CPU, over gloo, and needs no compiler.
    MissingPackageError: it is not installed.
    """
    require("deepspeed", "ZeRO")
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # torch says so at every call, and only deepspeed can do something about it.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)
    on_cpu = get_accelerator().device_name() == "cpu"
    if os.environ.get("DS_ACCELERATOR") == "cpu" and not on_cpu:
        raise ValueError("use_cpu=True comes too late for deepspeed, which is imported: set DS_ACCELERATOR=cpu before")
    if on_cpu:
        # This operator shares memory between processes; it would be compiled now, for minutes. gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not distributed.is_initialized():
        backend = backend or ("gloo" if on_cpu else get_accelerator().communication_backend_name())
        if "WORLD_SIZE" in os.environ:
            distributed.init_process_group(backend, timeout=timeout)
            leave_at_exit()
        else:
            stand_alone(backend)
    os.environ.setdefault("LOCAL_RANK", "0")  # deepspeed asks for it again and again
    deepspeed.init_distributed(backend, verbose=False)
    return deepspeed
