"""Grids of processes: which dimension of parallelism a process is where in."""

from __future__ import annotations

import math
import os
from typing import Any

from torch import distributed


def build_mesh(device_type: str, sizes: dict[str, int]) -> Any:
    """The device mesh whose dimensions have these names and sizes, slowest first. ValueError: there are not as many processes.

    A process that was started alone is a mesh of one.
    """
    from torch.distributed.device_mesh import init_device_mesh

    if not distributed.is_initialized():
        alone = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(store=alone, rank=0, world_size=1)
    if (wanted := math.prod(sizes.values())) != (there := distributed.get_world_size()):
        grid = " × ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{grid} are {wanted} processes, and there are {there}: start {wanted}, or change a size")
    return init_device_mesh(device_type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def sharding_sizes(world_size: int, hybrid: bool, replicas: int | None, shards: int | None) -> dict[str, int]:
    """The sizes of a mesh for sharded data parallelism; hybrid: shards within a machine, replicas over them, unless sizes are said.

    ValueError: there would be one replica, or the sizes do not divide the processes.
    """
    if not hybrid:
        return {"dp_shard": world_size}
    if replicas is None:
        shards = shards or int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        replicas = world_size // shards if world_size % shards == 0 else 0
    shards = shards or (world_size // replicas if replicas and world_size % replicas == 0 else 0)
    if replicas * shards != world_size:
        raise ValueError(
            f"hybrid_shard over {world_size} processes: dp_replicate_size × dp_shard_size has to be {world_size}"
        )
    if replicas == 1:
        raise ValueError(
            f"hybrid_shard has one group of {shards} processes, and nothing to replicate: write 'full_shard', "
            "or set dp_replicate_size in fsdp_config"
        )
    return {"dp_replicate": replicas, "dp_shard": shards}
