"""The processes that share a model, and those that hold copies of it."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from unibody.processes import leave_at_exit

DATA, TENSOR = "dp_replicate", "tp"  # the names of a mesh's dimensions


def find_mesh(tp_size: int | None = None, device_mesh: Any = None) -> Any:
    """The mesh [tp] of the processes that share a model: of a mesh that is given, or else groups of `tp_size` neighbours.

    ValueError: the program was not started by torchrun, or the number of processes is no multiple of tp_size.
    """
    if device_mesh is not None:
        names = device_mesh.mesh_dim_names or ()
        if device_mesh.ndim > 1 and TENSOR not in names:
            raise ValueError(
                f"device_mesh has the dimensions {', '.join(names) or device_mesh.ndim}: name one of them 'tp'"
            )
        found = device_mesh[TENSOR] if device_mesh.ndim > 1 else device_mesh
        if tp_size not in (None, found.size()):
            raise ValueError(
                f"tp_size is {tp_size}, and device_mesh has {found.size()} processes: leave out one of the two"
            )
        return found
    return make_mesh(tp_size)[TENSOR]


def make_mesh(tp_size: int | None) -> Any:
    """The mesh [dp_replicate, tp] of all processes, whose neighbours share a model."""
    join_processes()
    world = dist.get_world_size()
    size = world if tp_size is None else tp_size
    if size < 1 or world % size:
        raise ValueError(
            f"tp_size is {size}, and there are {world} processes, which is no multiple of it: start torchrun with "
            f"--nproc_per_node {max(size, 1) * max(1, world // max(size, 1))}, or choose a tp_size that divides {world}"
        )
    return init_device_mesh(local_device().type, (world // size, size), mesh_dim_names=(DATA, TENSOR))


def join_processes() -> None:
    """Lets this process meet the others that torchrun has started, unless it has."""
    if dist.is_initialized():
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        raise ValueError(
            "a model is to be split over processes, and there is one: start the program with torchrun, "
            "torchrun --nproc_per_node 2 program.py"
        )
    device = local_device()
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    dist.init_process_group(dist.get_default_backend_for_device(device))
    leave_at_exit()


def local_device() -> torch.device:
    """The accelerator of this process, by its number on its machine; the CPU where there is none, or gloo was chosen for it."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    on_cpu = dist.is_initialized() and dist.get_backend() == "gloo"
    if kind is None or on_cpu:
        return torch.device("cpu")
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


def mesh_device(mesh: Any) -> torch.device:
    """Where this process holds its part."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.accelerator.current_device_index())
