"""Generation by several processes that share one model's weights: all call it equally often, until the last is finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed


@contextmanager
def in_step(model: Any, synced: bool | None, assistant: Any = None) -> Iterator[None]:
    """Where it is entered, a call of the model waits for those of the others; who leaves early goes on with idle ones.

    `synced` None: if the weights are in parts (ZeRO-3, FSDP), which each call gathers. ValueError: the assistant's are, too.
    """
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not several or not (has_parts(model) if synced is None else synced):
        yield
        return
    if assistant is not None and has_parts(assistant):
        raise ValueError("assistant_model is in parts as the model is, and they are not called in turn: load it whole")
    hook, failed = model.register_forward_pre_hook(partial(wait, model.device), prepend=True), False
    try:
        yield
    except BaseException as error:
        failed = not isinstance(error, GeneratorExit)  # who asks for no more tokens leaves in good order
        raise
    finally:
        hook.remove()
        with torch.no_grad():
            while not failed and meet(model.device, 0):
                model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def each_in_step(model: Any, tokens: Iterator[Tensor], synced: bool | None, assistant: Any = None) -> Iterator[Tensor]:
    """The same tokens, each computed when all processes ask for one."""
    with in_step(model, synced, assistant):
        yield from tokens


def meet(device: Any, calls: int) -> int:
    """Waits for the others; how many processes call the model for a token of their own."""
    total = torch.tensor(calls, device=device)
    distributed.all_reduce(total)
    return int(total)


def wait(device: Any, *_: Any) -> None:
    meet(device, 1)


def has_parts(model: Any) -> bool:
    """Whether a process has only a part of the weights."""
    from torch.distributed.fsdp import FSDPModule

    from unibody.integrations.deepspeed.partition import is_partitioned

    return isinstance(model, FSDPModule) or is_partitioned(model)
