"""Parts of packed layers, where a part of the stored tensors is what the part of the weight packs to."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from unibody.tensor_parallel.splits import Split


def is_packed(module: Any) -> bool:
    return hasattr(module, "stored_tensors")


def parts_of_tensors(layer: Any, split: Split) -> dict[str, int | None]:
    """For each stored tensor the dimension that is split; None: it is the same for all parts. Those not named are the usual ones.

    A layer whose parts are parts of its tensors has `slices()`: of these the dimension along the rows of its weight, and that
    along the columns, and `part_multiples()`: what the numbers of rows and columns of a part have to be multiples of.
    """
    rows, columns = layer.slices() if hasattr(layer, "slices") else ({}, {})
    found: dict[str, int | None] = rows if split.dim == -2 else columns
    return found


def split_packed(name: str, layer: Any, split: Split, part: int, parts: int) -> None:
    """Leaves a packed layer its rows or columns. ValueError: its format has no such parts."""
    stored, dims = layer.stored_tensors(), parts_of_tensors(layer, split)
    usual = {key: value for key, value in layer.usual_tensors().items() if key not in dims}
    odd = [key for key, tensor in stored.items() if key not in dims and not is_usual(tensor, usual.get(key))]
    if odd:
        refuse(name, layer, split, f"its {', '.join(odd)} has no parts that are those of a smaller layer's")
    set_size(layer, split, size_of(layer, split) // parts)
    usual = layer.usual_tensors()

    def part_of(key: str, tensor: Tensor) -> Any:
        if key not in dims:
            return usual[key].to(tensor.device)
        dim = dims[key]
        if dim is None:
            return tensor
        return Split(dim).take(tensor, part, parts).clone(memory_format=torch.contiguous_format)

    layer.hold({key: part_of(key, tensor) for key, tensor in stored.items()})


def check_packed(name: str, layer: Any, split: Split, parts: int) -> None:
    """ValueError: the layer's format has no such parts, or none of this size."""
    kind = "columns" if split.dim == -1 else "rows"
    if split.packed > 1 or not parts_of_tensors(layer, split):
        refuse(name, layer, split, f"no part of its tensors computes what a part of its {kind} does")
    multiples = layer.part_multiples() if hasattr(layer, "part_multiples") else (1, 1)
    multiple, size = multiples[0 if split.dim == -2 else 1], size_of(layer, split)
    if size % (parts * multiple):
        refuse(name, layer, split, f"a part of {size} {kind} by {parts} processes is no multiple of {multiple}")


def usual_tensor(layer: Any, split: Split, key: str, parts: int) -> Tensor:
    """A tensor of the whole layer that goes without saying."""
    size = size_of(layer, split)
    set_size(layer, split, size * parts)
    found: Tensor = layer.usual_tensors()[key]
    set_size(layer, split, size)
    return found


def is_usual(tensor: Tensor, usual: Tensor | None) -> bool:
    return usual is not None and torch.equal(tensor.cpu(), usual.cpu())


def size_of(layer: Any, split: Split) -> int:
    return int(layer.out_features if split.dim == -2 else layer.in_features)


def set_size(layer: Any, split: Split, size: int) -> None:
    setattr(layer, "out_features" if split.dim == -2 else "in_features", size)


def refuse(name: str, layer: Any, split: Split, why: str) -> None:
    method = getattr(layer.config.quant_method, "value", layer.config.quant_method)
    style = "rowwise" if split.dim == -1 else "colwise"
    rows_too = style == "rowwise" and parts_of_tensors(layer, Split(-2))
    rule = f"'{name}': 'colwise_whole_input'" if rows_too else f"'{neighbours(name)}': 'replicate'"
    raise ValueError(
        f"{name} is packed by {method} and cannot be {style}: {why}; choose another tp_size or another style, "
        f"such as tp_plan={{{rule}}}"
    )


def neighbours(name: str) -> str:
    """The pattern of all that lies beside a layer, in every block."""
    return re.sub(r"\.\d+(?=\.)", ".*", name).rpartition(".")[0] + ".*"
