"""Scales that do not follow from what is rounded: those of inputs, learned from samples, and those of a key-value cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.quantizer import packed_layers
from unibody.core.quantization.schemes import QuantizationArgs, find_scales, input_tensors, round_values


@contextmanager
def calibrated_inputs(model: Any) -> Iterator[None]:
    """While it is entered, layers with static inputs learn the range of these, from which their scale follows."""
    ranges: dict[Any, tuple[Tensor, Tensor]] = {}

    def learn(layer: Any, arguments: Any) -> None:
        low, high = arguments[0].detach().float().aminmax()
        before = ranges.get(layer, (low, high))
        ranges[layer] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    layers = {layer: layer.inputs for layer in packed_layers(model).values() if input_tensors(layer.inputs)}
    if not layers:
        raise ValueError("calibrate: no layer of this model has inputs with a static scale: see its configuration")
    hooks = [layer.register_forward_pre_hook(learn) for layer in layers]
    for layer in layers:  # what is learned from is not rounded
        layer.inputs, layer.prepared = None, None
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, args in layers.items():
            layer.inputs, layer.prepared = args, None
    for layer, (low, high) in ranges.items():
        if layer.inputs.strategy == "tensor_group":
            found = {"input_global_scale": 448 * 6 / torch.maximum(-low, high).view(1)}
        else:
            scales, zeros = find_scales(low.view(1), high.view(1), layer.inputs)
            found = {"input_scale": scales, "input_zero_point": zeros.to(torch.int8)}
        stored = layer.stored_tensors()
        learned = {
            name: found[name].to(stored[name].dtype).view(stored[name].shape) for name in found.keys() & stored.keys()
        }
        layer.hold({**stored, **learned})


class RoundedCache:
    """A key-value cache that gets rounded keys and values from one attention module."""

    def __init__(self, cache: Any, module: Any, args: QuantizationArgs) -> None:
        self.cache, self.module, self.args = cache, module, args

    def update(self, key: Tensor, value: Tensor, layer: int) -> Any:
        buffers = dict(self.module.named_buffers(recurse=False))
        return self.cache.update(
            round_values(key, self.args, buffers, "k_"), round_values(value, self.args, buffers, "v_"), layer
        )


def round_caches(model: Any, args: QuantizationArgs) -> None:
    """Lets attention modules round what they put into the cache; static scales are their buffers `k_scale` and `v_scale`."""

    def wrap(module: Any, arguments: Any) -> Any:
        return tuple(RoundedCache(part, module, args) if hasattr(part, "update") else part for part in arguments)

    for name, module in model.named_modules():
        if re.fullmatch(r".*(self_attn|attention)", name):
            for buffer in () if args.dynamic else ("k_scale", "v_scale"):
                module.register_buffer(buffer, torch.ones(1))
            module.register_forward_pre_hook(wrap)
