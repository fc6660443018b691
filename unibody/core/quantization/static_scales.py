"""Scales that do not follow from what is rounded: those of inputs, learned from samples, and those of a key-value cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.quantizer import packed_layers
from unibody.core.quantization.schemes import QuantizationArgs, find_scales, round_values, static_tensors


@contextmanager
def calibrated_scales(model: Any) -> Iterator[None]:
    """While it is entered, layers with static inputs or outputs learn the range of these, from which their scale follows."""
    ranges: dict[Any, tuple[Tensor, Tensor]] = {}

    def learn(layer: Any, prefix: str, x: Tensor) -> None:
        low, high = x.detach().float().aminmax()
        before = ranges.get((layer, prefix), (low, high))
        ranges[layer, prefix] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    static = {
        (layer, prefix): args
        for layer in packed_layers(model).values()
        for prefix, args in (("input_", layer.inputs), ("output_", layer.outputs))
        if static_tensors(args, prefix)
    }
    if not static:
        raise ValueError(
            "calibrate: no inputs or outputs of this model's layers have a static scale: see its configuration"
        )
    before = {layer: (layer.inputs, layer.outputs) for layer, _ in static}
    hooks = []
    for layer in before:  # what is learned from is not rounded
        layer.inputs, layer.outputs, layer.prepared = None, None, None
        hooks.append(layer.register_forward_pre_hook(lambda layer, inputs: learn(layer, "input_", inputs[0])))
        hooks.append(layer.register_forward_hook(lambda layer, _, y: learn(layer, "output_", y)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, (inputs, outputs) in before.items():
            layer.inputs, layer.outputs, layer.prepared = inputs, outputs, None
    for (layer, prefix), args in static.items():
        if (layer, prefix) not in ranges:  # it did not run
            continue
        low, high = ranges[layer, prefix]
        if args.strategy == "tensor_group":
            found = {f"{prefix}global_scale": 448 * 6 / torch.maximum(-low, high).view(1)}
        else:
            scales, zeros = find_scales(low.view(1), high.view(1), args)
            zeros = zeros + 2 ** (args.num_bits - 1) if args.zp_dtype == "torch.uint8" else zeros
            found = {f"{prefix}scale": scales, f"{prefix}zero_point": zeros}
        stored = layer.stored_tensors()
        learned = {
            name: found[name].to(stored[name].dtype).view(stored[name].shape) for name in found.keys() & stored.keys()
        }
        layer.hold({**stored, **learned})


class RoundedCache:
    """A key-value cache that gets rounded keys and values from one attention module."""

    def __init__(self, cache: Any, scales: dict[str, Tensor], args: QuantizationArgs) -> None:
        self.cache, self.scales, self.args = cache, scales, args

    def update(self, key: Tensor, value: Tensor, layer: int) -> Any:
        rounded = (round_values(x, self.args, self.scales, prefix) for x, prefix in ((key, "k_"), (value, "v_")))
        return self.cache.update(*rounded, layer)


def round_caches(model: Any, args: QuantizationArgs, read_scales: Any = None) -> None:
    """Lets attention modules round what they put into the cache.

    Static scales are what `read_scales` finds in a module, or else its buffers `k_scale` and `v_scale`, with zero points beside.
    """

    def wrap(module: Any, arguments: Any) -> Any:
        scales = read_scales(module) if read_scales else dict(module.named_buffers(recurse=False))
        return tuple(RoundedCache(part, scales, args) if hasattr(part, "update") else part for part in arguments)

    stored = {} if read_scales else {**static_tensors(args, "k_"), **static_tensors(args, "v_")}
    shape = (model.config.num_key_value_heads, 1, 1) if args.strategy == "attn_head" else (1,)
    for name, module in model.named_modules():
        if re.fullmatch(r".*(self_attn|attention)", name):
            for buffer, tensor in stored.items():
                module.register_buffer(buffer, tensor.expand(shape).clone())
            module.register_forward_pre_hook(wrap)
