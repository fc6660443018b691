"""What processes that share a model do together, and its gradients: the two operators of Megatron-LM (1909.08053, §3), and two more."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Sum(torch.autograd.Function):
    """The sum over the processes; the gradient, the same for all, is passed on (Megatron's g)."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        return summed(x, group)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


class Share(torch.autograd.Function):
    """The same values, which each process uses for its part; the gradients of all parts are summed (Megatron's f)."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        context.group = group
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return summed(gradients[0], context.group), None


class Gather(torch.autograd.Function):
    """All parts of the last dimension, `size` long in sum; each process gets the gradient of its part."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: Any, size: int) -> Tensor:
        context.group = group
        return gathered(x, group, size)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return own_part(gradients[0], context.group), None, None


class Part(torch.autograd.Function):
    """This process's part of the last dimension; the gradients of the parts are put together."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: Any) -> Tensor:
        context.group, context.size = group, x.shape[-1]
        return own_part(x, group)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return gathered(gradients[0], context.group, context.size), None


def summed(x: Tensor, group: Any) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def gathered(x: Tensor, group: Any, size: int) -> Tensor:
    parts = dist.get_world_size(group)
    longest = -(-size // parts)
    filled = torch.nn.functional.pad(x, (0, longest - x.shape[-1])).contiguous()
    every = [torch.empty_like(filled) for _ in range(parts)]
    dist.all_gather(every, filled, group=group)
    return torch.cat(every, -1)[..., :size]


def own_part(x: Tensor, group: Any) -> Tensor:
    parts, part = dist.get_world_size(group), dist.get_rank(group)
    size = -(-x.shape[-1] // parts)
    return x[..., part * size : (part + 1) * size].contiguous()
