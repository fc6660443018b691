"""Random numbers that processes which share a model draw alike, so that they choose the same tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def draw_alike(parallelism: Any) -> None:
    """Gives the processes the states of the first's random numbers, of the CPU and of its accelerator."""
    group = parallelism.mesh.get_group()
    kinds: list[Any] = [torch]
    if (kind := parallelism.mesh.device_type) != "cpu":
        kinds.append(torch.get_device_module(kind))
    for module in kinds:
        state = module.get_rng_state().to(kind)
        dist.broadcast(state, dist.get_global_rank(group, 0), group=group)
        module.set_rng_state(state.cpu())
