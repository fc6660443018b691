"""Cutting a model into units, and each unit's weights into shards (FSDP2, torch's `fully_shard`)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn

from unibody.training.choices import WrapPolicy
from unibody.training.fsdp_config import FsdpConfig
from unibody.training.recomputing import declared_layers

CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # they are never called, and so cannot gather their weights


def find_units(model: nn.Module, config: FsdpConfig) -> list[nn.Module]:
    """The modules whose weights are gathered and given back together, inner ones first; the model itself is the last.

    ValueError: a class of the settings does not exist in the model.
    """
    if config.auto_wrap_policy == WrapPolicy.NONE:
        return [model]
    if config.auto_wrap_policy == WrapPolicy.SIZE:
        return [*filter(closed(model), large_modules(model, config.min_num_params)), model]
    names = set(config.layers or declared_layers(model))
    there = {type(module).__name__ for module in model.modules()}
    if lacking := sorted(names - there):
        raise ValueError(
            f"transformer_layer_cls_to_wrap names {', '.join(lacking)}, which {type(model).__name__} does not have: "
            f"it has {', '.join(sorted(there - {type(model).__name__}))}"
        )
    found = [module for module in model.modules() if type(module).__name__ in names and module is not model]
    return [*filter(closed(model), reversed(found)), model]


def closed(model: nn.Module) -> Callable[[nn.Module], bool]:
    """Whether a module shares no parameter with the rest of the model: one that is tied belongs to the unit around both."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))

    def is_closed(module: nn.Module) -> bool:
        own = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
        return all(count == uses[number] for number, count in own.items())

    return is_closed


def large_modules(model: nn.Module, least: int) -> list[nn.Module]:
    """The modules of at least so many parameters, not counted those of a module within that is one; inner ones first."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> int:
        size = sum(p.numel() for p in module.parameters(recurse=False)) + sum(map(visit, module.children()))
        if size < least or module is model or isinstance(module, CONTAINERS):
            return size
        found.append(module)
        return 0

    visit(model)
    return found


def shard_model(model: nn.Module, config: FsdpConfig, mesh: Any, device: torch.device, policy: Any) -> None:
    """Leaves each process its shard of every weight, in place; all start from the first process's values.

    Never more than one unit is held whole. Weights that loading left in their files are read there, by each process its rows.
    Parameters that are no floating-point numbers (packed weights) stay whole on each.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    units = find_units(model, config)
    late = {name: p.in_file for name, p in model.named_parameters() if hasattr(p, "in_file")}
    if lost := [name for name, p in model.named_parameters() if p.is_meta and name not in late]:
        raise ValueError(
            f"{lost[0]} is on the meta device and has no values: make the model on the CPU, or, if they were to be read in "
            "parts, set cpu_ram_efficient_loading=False"
        )
    inner = dataclasses.replace(policy, output_dtype=None)  # which is for what the model returns
    whole = {p for p in model.parameters() if not p.is_floating_point() and not p.is_meta}
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    for buffer in model.buffers():
        buffer.data = from_first(buffer.data, device)
    for number, unit in enumerate(units):
        for parameter in dict.fromkeys(own_parameters(unit, set(units[:number]))):  # tied ones once
            if not parameter.is_meta and parameter not in whole:
                parameter.data = from_first(parameter.data, device)
        fully_shard(
            unit,
            mesh=mesh,
            reshard_after_forward=config.reshard_after_forward if unit is not model else None,
            mp_policy=policy if unit is model else inner,
            offload_policy=CPUOffloadPolicy() if config.offload else OffloadPolicy(),
            ignored_params=whole,
        )
    fill_late(model, late, torch.device("cpu") if config.offload else device)
    model.register_forward_hook(give_back)


def own_parameters(unit: nn.Module, inner: set[nn.Module]) -> Iterator[nn.Parameter]:
    """The parameters of a unit that are in no inner one."""
    yield from unit.parameters(recurse=False)
    for child in unit.children():
        if child not in inner:
            yield from own_parameters(child, inner)


def from_first(tensor: Tensor, device: torch.device) -> Tensor:
    """The first process's values, on this device."""
    if distributed.get_world_size() == 1:
        return tensor.to(device)
    first = distributed.get_rank() == 0
    whole = tensor.to(device).contiguous() if first else torch.empty_like(tensor, device=device).contiguous()
    distributed.broadcast(whole, 0)
    return whole


@torch.no_grad()
def fill_late(model: nn.Module, weights: dict[str, Tensor], device: torch.device) -> None:
    """Gives the parameters that have no memory yet their shards of these weights; ties stay ties."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            held: Any = like_shards(weights[name], parameter)
            held = held.to(device=device, dtype=parameter.dtype)
            swap: Any = torch.utils.swap_tensors  # the parameter stays the same object, which others hold, too
            swap(parameter, nn.Parameter(held, parameter.requires_grad))


def like_shards(tensor: Tensor, parameter: Any) -> Any:
    """A whole tensor that every process has, cut as a parameter is; nothing is sent, and only this process's part is read."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def give_back(model: nn.Module, inputs: Any, outputs: Any) -> None:
    """After a forward pass that no backward pass follows, every unit is in shards again."""
    from torch.distributed.fsdp import FSDPModule

    if not torch.is_grad_enabled():
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
