"""Parts of packed layers, where a part of the stored tensors is what the part of the weight packs to."""

from __future__ import annotations

from typing import Any

from unibody.tensor_parallel.splits import Split


def split_packed(name: str, layer: Any, split: Split, part: int, parts: int) -> None:
    """Leaves a packed layer its rows or columns. ValueError: its format has no such parts."""
    along = "out_features" if split.dim == -2 else "in_features"
    stored = layer.stored_tensors()
    dims = slice_dims(name, layer, along)
    setattr(layer, along, getattr(layer, along) // parts)
    found = {
        key: tensor if dims[key] is None else Split(dims[key]).take(tensor, part, parts).clone()
        for key, tensor in stored.items()
    }
    expected = {key: list(tensor.shape) for key, tensor in layer.empty_tensors().items()}
    actual = {key: list(tensor.shape) for key, tensor in found.items()}
    if any(actual[key] != shape for key, shape in expected.items() if key in actual):
        raise ValueError(refusal(name, layer, f"{parts} parts of its {along} do not end where its blocks end"))
    layer.hold(found)


def slice_dims(name: str, layer: Any, along: str) -> dict[str, int | None]:
    """For each stored tensor the dimension that runs along the layer's rows (out_features) or columns; None: neither."""
    table = layer.slices
    return {key: table[key][0 if along == "out_features" else 1] for key in layer.stored_tensors()}


def refusal(name: str, layer: Any, why: str) -> str:
    method = layer.config.quant_method
    return (
        f"{name} is packed by {getattr(method, 'value', method)}, and cannot be split: {why}; leave it whole, "
        f"tp_plan={{'{name}': 'replicate'}}"
    )
