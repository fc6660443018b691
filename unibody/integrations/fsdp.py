"""FSDP as other code sees it: whether it is in use, and whether a module is its own.

The launcher and the training arguments say through the environment, as in the whole ecosystem, what is asked for.
"""

from __future__ import annotations

import os
import sys
from typing import Any

IN_USE = "ACCELERATE_USE_FSDP"
EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
YES = ("1", "true", "t", "yes", "y", "on")


def is_fsdp_enabled() -> bool:
    """Whether this is one of the processes of an FSDP run in which models are loaded part by part."""
    from torch import distributed

    asked = all(os.environ.get(name, "").lower() in YES for name in (IN_USE, EFFICIENT_LOADING))
    return asked and distributed.is_available() and distributed.is_initialized()


def is_fsdp_managed_module(module: Any) -> bool:
    """Whether FSDP, in either of its versions, has a module's weights in its care."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # without which there is no such module
    classes = () if fsdp is None else (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    return isinstance(module, classes) or bool(getattr(module, "_is_fsdp_managed_module", False))
