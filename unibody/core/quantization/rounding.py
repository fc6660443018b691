"""Rounding that is learned: by how much each weight is shifted, and each group's range narrowed, before it is rounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unibody.core.quantization.affine import GroupwiseCodes

LEAST_SCALE = 1e-5


class Rounding(NamedTuple):
    """What is learned of a weight [N, K]; at the start it is rounded to nearest, in groups of their whole range."""

    shift: Tensor  # [N, G, g] in units of the codes, from −1/2 to 1/2
    low: Tensor  # [N, G], the share of the negative range, from 0 to 1
    high: Tensor  # [N, G], the share of the positive range

    @classmethod
    def nearest(cls, weight: Tensor, group_size: int) -> Rounding:
        shift = torch.zeros_like(weight, dtype=torch.float32).unflatten(1, (-1, group_size))
        return cls(shift, torch.ones_like(shift[..., 0]), torch.ones_like(shift[..., 0]))


def round_shifted(weight: Tensor, rounding: Rounding, bits: int, symmetric: bool) -> tuple[GroupwiseCodes, Tensor]:
    """The codes of a weight [N, K] with scales in float16, and the dequantized weight, whose gradients pass the rounding.

    Symmetric: the code 0 stands for the larger end of the range, so scales are negative where that is the positive one
    (2309.05516, section 3, with the full range of codes). Otherwise both ends fit.
    """
    groups, top = weight.float().unflatten(1, rounding.shift.shape[1:]), 2**bits - 1
    low = groups.amin(-1).clamp(max=0) * rounding.low
    high = groups.amax(-1).clamp(min=0) * rounding.high
    if symmetric:
        scales = torch.where(high < -low, -low, -high) / (top // 2 + 1)
    else:
        scales = (high - low) / top
    scales = scales + (scales.half().float() - scales).detach()
    scales = torch.where(scales < 0, scales.clamp(max=-LEAST_SCALE), scales.clamp(min=LEAST_SCALE))
    zeros = torch.full_like(scales, top // 2 + 1) if symmetric else round_through(-low / scales)
    codes = round_through(groups / scales[..., None] + rounding.shift) + zeros[..., None]
    codes = codes.clamp(0, top)
    values = ((codes - zeros[..., None]) * scales[..., None]).flatten(1)
    whole = GroupwiseCodes(codes.flatten(1).to(torch.uint8), scales.half(), zeros.to(torch.uint8))
    return GroupwiseCodes(*(x.detach() for x in whole[:3])), values


def round_through(x: Tensor) -> Tensor:
    """x rounded; its gradient is that of x (straight-through)."""
    return x + (x.round() - x).detach()


def tune_block(
    block: Any, layers: dict[str, Any], calls: list[Any], targets: list[Tensor], config: Any
) -> dict[str, GroupwiseCodes]:
    """The codes of a block's linear layers, by name, with which its outputs for these calls come near to the targets.

    Signed gradient descent (2309.05516, algorithm 1): a step moves everything by the same amount, which falls from the
    learning rate to 0. Of the start, the end and the mean of the second half, that is kept which has the least error on all
    samples: a step's own error is that of its few samples. `layers` are packed ones, still without tensors.
    """
    weights = {name: block.get_submodule(name).weight.detach() for name in layers}
    learned = {name: Rounding.nearest(weights[name], layer.group_size) for name, layer in layers.items()}
    start, mean = learned, learned
    generator, waiting = torch.Generator().manual_seed(config.seed), list[int]()

    def rounded(learned: dict[str, Rounding]) -> dict[str, Tensor]:
        found = {}
        for name, layer in layers.items():
            values = round_shifted(weights[name], learned[name], layer.bits, layer.symmetric)[1]
            found[f"{name}.weight"] = values.to(weights[name].dtype)
        return found

    def error(values: dict[str, Tensor], chosen: Iterable[int]) -> Tensor:
        return torch.stack([block_error(block, values, calls[index], targets[index]) for index in chosen]).sum()

    for step in range(config.iters):
        tensors = [tensor.requires_grad_() for rounding in learned.values() for tensor in rounding]
        if len(waiting) < config.batch_size:
            waiting = torch.randperm(len(calls), generator=generator).tolist()
        chosen, waiting = waiting[: config.batch_size], waiting[config.batch_size :]
        with torch.enable_grad():
            loss = error(rounded(learned), chosen)
        moves = iter(torch.autograd.grad(loss, tensors))
        rate = (config.lr or 1 / config.iters) * (1 - step / config.iters)
        learned = {
            name: Rounding(
                (rounding.shift.detach() - rate * next(moves).sign()).clamp(-0.5, 0.5),
                (rounding.low.detach() - rate * next(moves).sign()).clamp(0, 1),
                (rounding.high.detach() - rate * next(moves).sign()).clamp(0, 1),
            )
            for name, rounding in learned.items()
        }
        if (part := step - config.iters // 2) >= 0:
            mean = {
                name: Rounding(
                    *((old * part + new) / (part + 1) for old, new in zip(mean[name], rounding, strict=True))
                )
                for name, rounding in learned.items()
            }
    with torch.no_grad():
        found = min((start, mean, learned), key=lambda one: float(error(rounded(one), range(len(calls)))))
    return {
        name: round_shifted(weights[name], found[name], layer.bits, layer.symmetric)[0]
        for name, layer in layers.items()
    }


def block_error(block: nn.Module, weights: dict[str, Tensor], call: Any, target: Tensor) -> Tensor:
    """The mean square error of a block's output, with other weights."""
    output: Any = functional_call(block, weights, *call)
    output = output[0] if isinstance(output, tuple) else output
    return (output.float() - target.float()).square().mean()
