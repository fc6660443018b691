"""Factors that move from a layer's output into the columns of the layers that read it, and leave the block's function as it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

THROUGH = {"o_proj": "v_proj", "down_proj": "up_proj"}  # whose rows a layer's columns can be scaled through, by name


class Scaling(NamedTuple):
    """Layers with one input, and the norm or linear layer that can divide it by what their columns are multiplied by."""

    before: Any
    layers: list[nn.Linear]
    whole: nn.Module  # whose outputs count: the layers' common parent, or the one layer
    calls: list[tuple[Any, Any]]  # arguments of `whole` for each sample


def find_scalings(block: nn.Module, linears: list[Any], run: Any) -> tuple[list[Scaling], dict[Any, Tensor], Any]:
    """What can be scaled among a block's layers, the layers' inputs [n, K], and what `run`, which runs the block, returns."""
    names = {module: name for name, module in block.named_modules()}
    calls: dict[nn.Module, list[Any]] = {module: [] for module in names}
    makers: dict[int, nn.Module] = {}  # by the identity of what they returned; all of it is held while this runs
    held: list[Any] = []

    def enter(module: nn.Module, arguments: Any, options: Any) -> None:
        calls[module].append((arguments, options))

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        if not any(module.children()):
            makers[id(output)] = module
            held.append(output)

    hooks = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    outputs = run()
    for hook in hooks:
        hook.remove()
    inputs = {linear: torch.cat([given[0].flatten(0, -2) for given, _ in calls[linear]]) for linear in linears}
    groups: dict[int, list[nn.Linear]] = {}
    for linear in linears:
        groups.setdefault(id(calls[linear][0][0][0]), []).append(linear)
    found = []
    for source, layers in groups.items():
        parent, _, name = names[layers[0]].rpartition(".")
        before = makers.get(source)
        whole = block.get_submodule(parent) if len(layers) > 1 else layers[0]
        if name in THROUGH:
            before = getattr(block.get_submodule(parent), THROUGH[name], None)
        weight = getattr(before, "weight", None)
        if weight is not None and weight.shape[0] == layers[0].in_features:
            found.append(Scaling(before, layers, whole, calls[whole]))
    return found, inputs, outputs


@torch.no_grad()
def apply_scales(scaling: Scaling, scales: Tensor) -> None:
    """Multiplies the layers' columns by scales [K], and divides what comes before."""
    before, bias = scaling.before, getattr(scaling.before, "bias", None)
    if before.weight.dim() == 2:
        before.weight.div_(scales[:, None])
    else:  # a norm: some multiply by their weight, some by one more
        kept = before.weight.clone()
        before.weight.zero_()
        rest = before(torch.arange(1, len(kept) + 1, device=kept.device).to(kept)) - (0 if bias is None else bias)
        one = float(rest.abs().sum() > 0)
        before.weight.copy_((kept + one) / scales - one)
    if bias is not None:
        bias.div_(scales)
    for layer in scaling.layers:
        layer.weight.mul_(scales)


@torch.no_grad()
def require_scalable(scalings: list[Scaling], outputs: list[Tensor], run: Any) -> None:
    """Refuses a block that computes something else once it is scaled: a norm's output goes somewhere else, too.

    Powers of two are tried, which change no bit of what is right, and much of what is not.
    """
    weights = {p: p.clone() for one in scalings for module in (one.before, *one.layers) for p in module.parameters()}
    for one in scalings:
        even = torch.arange(one.layers[0].in_features, device=one.layers[0].weight.device) % 2 == 0
        apply_scales(one, torch.where(even, 2.0, 0.5))
    scaled = run()
    for parameter, weight in weights.items():
        parameter.copy_(weight)
    if any((old - new).norm() > 0.1 * old.norm() for old, new in zip(outputs, scaled, strict=True)):
        raise ValueError("the blocks cannot be scaled: what a norm returns is read by more than linear layers")
