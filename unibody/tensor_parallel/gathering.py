"""The whole of what processes hold parts of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.tensor_parallel.packed import parts_of_tensors, usual_tensor
from unibody.tensor_parallel.splits import Split


def whole_state(model: Any, keep: bool = True) -> dict[str, Tensor]:
    """All weights by name, as one process has them, on the CPU; all processes that share the model call it, each may `keep` them."""
    parallelism, found, gathered = model.parallelism, {}, dict[int, Any]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in gathered:  # a tied weight is gathered once
            whole = whole_tensor(model, name, tensor.detach(), parallelism)
            gathered[id(tensor)] = whole.cpu() if keep else None
        found[name] = gathered[id(tensor)]
    return found if keep else {}


def whole_tensor(model: Any, name: str, tensor: Tensor, parallelism: Any) -> Tensor:
    if name in parallelism.splits:
        return join(tensor, parallelism.splits[name], parallelism)
    for layer_name, split in parallelism.packed.items():
        key = name.removeprefix(f"{layer_name}.")
        if key != name and key != "bias":
            layer = model.get_submodule(layer_name)
            dims = parts_of_tensors(layer, split)
            if key not in dims:
                return usual_tensor(layer, split, key, parallelism.size)
            dim = dims[key]
            return tensor if dim is None else join(tensor, Split(dim), parallelism)
    return tensor


def join(part: Any, split: Split, parallelism: Any) -> Tensor:
    """The whole tensor of the parts, which are DTensors or what they hold."""
    from torch.distributed.tensor import DTensor, Shard

    kind = part.dtype
    if not isinstance(part, DTensor):
        raw = part.contiguous().view(torch.uint8) if kind.itemsize == 1 else part
        part = DTensor.from_local(raw, parallelism.mesh, [Shard(split.dim % raw.dim())], run_check=False)
    return split.in_order(part.full_tensor(), parallelism.size).view(kind)
