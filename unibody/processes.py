"""The beginning and the end of a program that is one of several processes."""

from __future__ import annotations

import atexit
import gc
import os
import time
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import distributed

HOLDERS: WeakSet[Any] = WeakSet()  # what would keep the group alive: `let_go` is called before it ends


def join_processes() -> None:
    """Lets this process meet the others that torchrun has started, unless it has. ValueError: torchrun has not started it."""
    if distributed.is_initialized():
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        raise ValueError(
            "a model is to be split over processes, and there is one: start the program with torchrun, "
            "torchrun --nproc_per_node 2 program.py"
        )
    device = local_device()
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    distributed.init_process_group(distributed.get_default_backend_for_device(device))
    leave_at_exit()


def stand_alone(backend: str | None = None) -> None:
    """Makes a group of this process, which was started alone, unless it is in one."""
    if distributed.is_initialized():
        return
    from torch._C._distributed_c10d import HashStore  # torch.distributed has it, but not for type checkers

    distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    leave_at_exit()


def local_device() -> torch.device:
    """The accelerator of this process, by its number on its machine; the CPU where there is none, or gloo was chosen for it."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    on_cpu = distributed.is_initialized() and distributed.get_backend() == "gloo"
    if kind is None or on_cpu:
        return torch.device("cpu")
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


def leave_at_exit() -> None:
    """Lets this process take leave of the others when the program ends, however it ends; called by who has made the group."""
    atexit.unregister(leave)
    atexit.register(leave)


def leave() -> None:
    """Ends the group of processes, and the threads of gloo.

    Those let go of the last tensors that they sent some time after these have arrived, and abort the program if Python is no longer
    there. They are waited for where the group is destroyed, which it is when nothing holds it; where the weights of a model in parts
    do, or torch's tables of how to spread operations, the threads stay, and get the time to fall asleep.
    """
    if not distributed.is_initialized():
        return
    for holder in HOLDERS:
        holder.let_go()
    gc.collect()
    backend = distributed.get_backend()
    distributed.destroy_process_group()
    if "gloo" in backend:
        for _ in range(50):
            time.sleep(0.1)
            if not any(_is_awake(thread) for thread in Path("/proc/self/task").glob("*")):
                break


def _is_awake(thread: Path) -> bool:
    """Whether a thread, by its folder in Linux's /proc, is one of gloo's and has something to do."""
    try:
        name, _, state = (thread / "stat").read_text().partition("(")[2].rpartition(") ")
    except OSError:  # it has ended
        return False
    return "gloo" in name and not state.startswith("S")
