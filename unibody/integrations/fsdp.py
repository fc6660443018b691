"""FSDP as other code sees it: whether it is in use, and whether a module is its own.

The launcher and the training arguments say through the environment, as in the whole ecosystem, what is asked for.
"""

from __future__ import annotations

import os
from typing import Any

IN_USE = "ACCELERATE_USE_FSDP"
EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
YES = ("1", "true", "t", "yes", "y", "on")


def asks_for_efficient_loading() -> bool:
    """Whether models are to be loaded for FSDP without each process holding all of their weights."""
    return all(os.environ.get(name, "").lower() in YES for name in (IN_USE, EFFICIENT_LOADING))


def is_fsdp_enabled() -> bool:
    """Whether this is one of the processes of an FSDP run in which models are loaded part by part."""
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized() and asks_for_efficient_loading()


def is_fsdp_managed_module(module: Any) -> bool:
    """Whether FSDP, in either of its versions, has a module's weights in its care."""
    import torch

    if not torch.distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return isinstance(module, FSDPModule | FullyShardedDataParallel) or bool(
        getattr(module, "_is_fsdp_managed_module", False)
    )
