"""Checkpoints of sharded models: as one process would write them, or each process its part (torch.distributed.checkpoint).

The whole ones are the same files that a run without FSDP writes and reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.training import checkpoints
from unibody.training.checkpoints import MODEL_PARTS, OPTIMIZER_PARTS
from unibody.training.engines.parts import load_parts, read_index, save_parts
from unibody.training.engines.sharded_modules import like_shards


def gathered(tensor: Any, keep: bool) -> Tensor | None:
    """The whole of a tensor of which each process has a shard, on the CPU; None where it is not kept. Every process calls it."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu() if keep else None


def gathered_state(model: nn.Module, keep: bool) -> dict[str, Any]:
    """The model's state with whole tensors, gathered one by one; tied weights are one tensor, and empty where it is not kept.

    Of a model with adapters, what is trained: the base is stored elsewhere.
    """
    first, found = checkpoints.first_names(model), dict[str, Any]()
    state = model.state_dict()
    if checkpoints.has_adapters(model):
        state = {name: state[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, tensor in state.items():
        source = first.get(name, name)
        found[name] = found[source] if source in found else gathered(tensor, keep)
    return found if keep else {}


def class_before(model: Any) -> type:
    """The model's class without what FSDP has put before it."""
    _, before = type(model).__bases__
    return before


@contextmanager
def as_before(model: Any, state: dict[str, Any]) -> Iterator[None]:
    """While it lasts, the model has the class that it had before it was sharded, and this state."""
    sharded = type(model)
    model.__class__ = class_before(model)
    vars(model).update(state_dict=lambda *_, **__: dict(state), _is_fsdp_managed_module=False)
    try:
        yield
    finally:
        del vars(model)["state_dict"]
        model._is_fsdp_managed_module = True
        model.__class__ = sharded


def save_whole(model: Any, folder: Path, keep: bool) -> None:
    """Writes what from_pretrained reads; the process that keeps the whole does it."""
    state = gathered_state(model, keep)
    if keep:
        with as_before(model, state):
            checkpoints.save_model(model, folder)


def save_sharded(model: Any, folder: Path, first: bool) -> None:
    """Writes each process's part of the weights, and what else a checkpoint has: config.json and the like."""
    save_parts({"model": sharded_state(model)}, folder / MODEL_PARTS)
    if first:
        with as_before(model, {}):
            checkpoints.save_model(model, folder)
        (folder / "model.safetensors").unlink()  # of no weights


def sharded_state(model: nn.Module) -> dict[str, Any]:
    """The model's state, in shards as it is; a tied weight is there once."""
    first = checkpoints.first_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if first.get(name, name) == name}


@torch.no_grad()
def load_whole(model: Any, folder: Path) -> None:
    """Each process reads its part of the files that `save_whole`, or a run without FSDP, has written."""
    checkpoints.load_model(model, folder, lambda _, own, stored: own.copy_(like_shards(stored, own)))


def load_sharded(model: Any, folder: Path) -> None:
    """Fills the model from a checkpoint of any number of processes. ValueError: it is another model's, or not whole."""
    stored = read_index(folder / MODEL_PARTS).state_dict_metadata
    state = sharded_state(model)
    checkpoints.compare(
        model, folder, {n.removeprefix("model."): tuple(m.size) for n, m in stored.items()}, model.state_dict()
    )
    load_parts({"model": state}, folder / MODEL_PARTS)


def whole_optimizer(optimizer: Any, keep: bool) -> dict[str, Any]:
    """The optimizer's state as one process would have it, gathered tensor by tensor."""
    state = optimizer.state_dict()
    every = {
        number: {name: gathered(v, keep) if isinstance(v, Tensor) else v for name, v in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": every}


def load_whole_optimizer(optimizer: Any, folder: Path) -> None:
    """Each process reads its part of the state that one process, or `whole_optimizer`, has written."""
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    every = {
        number: {
            name: like_shards(v, own) if isinstance(v, Tensor) and v.shape == own.shape else v
            for name, v in values.items()
        }
        for number, own in enumerate(parameters)
        if (values := state["state"].get(number)) is not None
    }
    optimizer.load_state_dict({**state, "state": every})


def save_sharded_optimizer(model: Any, optimizer: Any, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    save_parts({"optimizer": get_optimizer_state_dict(model, optimizer)}, folder / OPTIMIZER_PARTS)


def load_sharded_optimizer(model: Any, optimizer: Any, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    read_index(folder / OPTIMIZER_PARTS)
    state = get_optimizer_state_dict(model, optimizer)
    load_parts({"optimizer": state}, folder / OPTIMIZER_PARTS)
    set_optimizer_state_dict(model, optimizer, state)
