"""Packed layers with one input that run as one: the first that is asked computes for all, the others take their share."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from unibody.core.quantization.affine import GroupwiseCodes


class SharedInput:
    """The rows of several layers in one; the layers hold nothing while they belong to it."""

    def __init__(self, layers: list[Any]) -> None:
        biases = [layer.bias for layer in layers if layer.bias is not None]
        rows = [layer.out_features for layer in layers]
        together = SimpleNamespace(
            in_features=layers[0].in_features, out_features=sum(rows), bias=torch.cat(biases) if biases else None
        )
        self.whole = type(layers[0])(together, layers[0].config)
        codes = [layer.unpack_codes(layer.stored_tensors())[:3] for layer in layers]
        self.whole.hold(self.whole.pack_codes(GroupwiseCodes(*map(torch.cat, zip(*codes, strict=True)))))
        ends = accumulate(rows)
        self.rows = {layer: slice(end - size, end) for layer, size, end in zip(layers, rows, ends, strict=True)}
        self.x: Any = None
        self.y: Any = None
        self.waiting: set[Any] = set()
        for layer in layers:
            layer.hold({})
            layer.shared, layer.kernel = self, "fused"

    def outputs(self, layer: Any, x: Tensor) -> Tensor:
        if self.x is not x:
            self.x, self.y, self.waiting = x, self.whole(x), set(self.rows)
        y = self.y[..., self.rows[layer]]
        self.waiting.discard(layer)
        if not self.waiting:
            self.x = self.y = None
        return y

    def stored_tensors(self, layer: Any) -> dict[str, Tensor]:
        codes = self.whole.unpack_codes(self.whole.stored_tensors())
        return layer.pack_codes(GroupwiseCodes(*(x[self.rows[layer]] for x in codes[:3])))


def fuse_layers(model: Any, groups: list[list[str]]) -> int:
    """Runs the packed layers that have these names in a module as one; how often that was."""
    count = 0
    for module in list(model.modules()):
        for names in groups:
            layers = [getattr(module, name, None) for name in names]
            if all(hasattr(layer, "shared") for layer in layers):
                SharedInput(layers)
                count += 1
    return count
