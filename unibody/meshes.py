"""Grids of processes: those that share a model, those that hold shards of it, and those that hold copies."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from unibody.processes import join_processes, local_device, stand_alone

COPY, SHARD, TENSOR = "dp_replicate", "dp_shard", "tp"  # the names of a mesh's dimensions


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
    return tensor_mesh(tp_size)[TENSOR]


def tensor_mesh(tp_size: int | None) -> Any:
    """The mesh [dp_replicate, tp] of all processes, whose neighbours share a model."""
    join_processes()
    world = distributed.get_world_size()
    size = world if tp_size is None else tp_size
    if size < 1 or world % size:
        raise ValueError(
            f"tp_size is {size}, and there are {world} processes, which is no multiple of it: start torchrun with "
            f"--nproc_per_node {max(size, 1) * max(1, world // max(size, 1))}, or choose a tp_size that divides {world}"
        )
    return _build(local_device().type, {COPY: world // size, TENSOR: size})


def sharded_mesh(device_type: str, hybrid: bool, copies: int | None, shards: int | None) -> Any:
    """The mesh for sharded data parallelism, [dp_shard] or, if it is hybrid, [dp_replicate, dp_shard].

    Hybrid: shards within a machine, copies over them, unless sizes are said. A process that was started alone is a mesh of one.
    ValueError: there would be one copy, or the sizes do not divide the processes.
    """
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if not hybrid:
        stand_alone()
        return _build(device_type, {SHARD: world})
    if copies is None:
        shards = shards or int(os.environ.get("LOCAL_WORLD_SIZE", world))
        copies = world // shards if world % shards == 0 else 0
    shards = shards or (world // copies if copies and world % copies == 0 else 0)
    if copies * shards != world:
        raise ValueError(f"hybrid_shard over {world} processes: dp_replicate_size × dp_shard_size has to be {world}")
    if copies == 1:
        raise ValueError(
            f"hybrid_shard has one group of {shards} processes, and nothing to replicate: write 'full_shard', "
            "or set dp_replicate_size in fsdp_config"
        )
    return _build(device_type, {COPY: copies, SHARD: shards})


def mesh_device(mesh: Any) -> torch.device:
    """Where this process holds its part."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.accelerator.current_device_index())


def _build(device_type: str, sizes: dict[str, int]) -> Any:
    """The mesh of all processes whose dimensions have these names and sizes, slowest first."""
    return init_device_mesh(device_type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
