"""Splitting the layers of a model that stands, or whose parts have just been read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from unibody.core.loading import tie_weights
from unibody.tensor_parallel.packed import is_packed, split_packed
from unibody.tensor_parallel.plans import check_plan, find_plan, share_single_heads
from unibody.tensor_parallel.splits import Split
from unibody.tensor_parallel.styles import STYLES, SplitLayer, sum_gradient


@dataclass
class Parallelism:
    """What is split of a model, and over which processes; `model.parallelism`."""

    mesh: Any  # of one dimension
    plan: dict[str, str]  # the style of each module or parameter
    splits: dict[str, Split] = field(default_factory=dict)  # of parameters
    packed: dict[str, Split] = field(default_factory=dict)  # of packed layers' weights

    @property
    def size(self) -> int:
        return int(self.mesh.size())

    @property
    def rank(self) -> int:
        return int(self.mesh.get_local_rank())


def plan_splits(model: Any, mesh: Any, tp_plan: Any, ep_plan: Any = None) -> Parallelism:
    """What will be split of a model, which needs no memory yet. ValueError: it cannot be."""
    plan = find_plan(model, tp_plan, ep_plan)
    split_ties(model, plan)
    share_single_heads(model, plan, mesh.size())
    check_plan(model, plan, mesh.size())
    found, parameters = Parallelism(mesh, plan), dict(model.named_parameters(remove_duplicate=False))
    for name, style_name in plan.items():
        style = STYLES[style_name]
        if name in parameters:
            if style.weight is not None:
                found.splits[name] = style.bias if parameters[name].dim() == 1 else style.weight  # type: ignore[assignment]
            continue
        if style.weight is None:
            continue
        if is_packed(model.get_submodule(name)):
            found.packed[name] = style.weight
        else:
            found.splits[f"{name}.weight"] = style.weight
        if style.bias is not None and f"{name}.bias" in parameters:
            found.splits[f"{name}.bias"] = style.bias
    for name, source in ties(model).items():
        if name in found.splits:
            found.splits[source] = found.splits[name]
    return found


def split_ties(model: Any, plan: dict[str, str]) -> None:
    """A head that shares its weight with the embedding has the rows of the tokens that the embedding knows."""
    for name, source in ties(model).items():
        head, embedding = name.removesuffix(".weight"), source.removesuffix(".weight")
        chosen = [plan.get(module) for module in (head, embedding)]
        if name.endswith(".weight") and any(STYLES[style].weight is not None for style in chosen if style):
            found = plan.setdefault(head, "colwise_gather_output"), plan.setdefault(embedding, "embedding_rowwise")
            if found not in (("colwise_gather_output", "embedding_rowwise"), ("colwise_rep", "embedding_rowwise")):
                raise ValueError(
                    f"{embedding} and {head} are one weight, which the plan splits as {found[1]!r} and as {found[0]!r}: say "
                    "'embedding_rowwise' and 'colwise_gather_output', or 'replicate' for both"
                )


def ties(model: Any) -> dict[str, str]:
    """The names of weights that are others, with the names of these."""
    is_tied = getattr(model.config, "tie_word_embeddings", False)
    found: dict[str, str] = getattr(model, "_tied_weights_keys", {}) if is_tied else {}
    return found


def split_model(model: Any, parallelism: Parallelism, parts: dict[str, Tensor] | None = None) -> None:
    """Splits a model in place; `parts` are what has been read of parameters, the others are whole and get split now."""
    mesh, done = parallelism.mesh, {}
    for name, split in parallelism.splits.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        whole = module._parameters[attribute]
        if id(whole) not in done:
            part = (parts or {}).get(name)
            if part is None:
                part = split.take(whole.detach(), parallelism.rank, parallelism.size).clone()
            done[id(whole)] = sharded(part, split, mesh, whole)
        module._parameters[attribute] = done[id(whole)]
    for name, split in parallelism.packed.items():
        split_packed(name, model.get_submodule(name), split, parallelism.rank, parallelism.size)
    if hasattr(model, "_tied_weights_keys"):
        tie_weights(model)
    modules = {name for name, _ in model.named_modules()}
    for name in sorted({name.rpartition(".")[0] for name in parallelism.splits} | parallelism.plan.keys() & modules):
        module, style = model.get_submodule(name), STYLES[parallelism.plan.get(name, "replicate")]
        names = [key for key in module._parameters if f"{name}.{key}" in parallelism.splits]
        if style.sums_gradients:
            for parameter in module.parameters():
                sum_gradient(parameter, mesh)
        if names or style.before or style.after:
            SplitLayer(module, style, mesh, names)
    model.parallelism, model.tp_size = parallelism, parallelism.size


def sharded(part: Tensor, split: Split, mesh: Any, whole: Tensor) -> nn.Parameter:
    """A parameter of which this process holds a part; `whole` says its shape, and whether it is trained."""
    from torch.distributed.tensor import DTensor, Shard

    placement = Shard(split.dim % whole.dim())
    found = DTensor.from_local(
        part.contiguous(), mesh, [placement], run_check=False, shape=whole.shape, stride=stride_of(whole.shape)
    )
    return nn.Parameter(found, requires_grad=whole.requires_grad)


def stride_of(shape: Any) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    found, step = [], 1
    for size in reversed(shape):
        found.append(step)
        step *= size
    return tuple(reversed(found))


def same_everywhere(model: Any, parallelism: Parallelism, names: Any) -> None:
    """Gives whole tensors the values that the first process has: each has drawn its own."""
    group, state = parallelism.mesh.get_group(), model.state_dict()
    for name in sorted(names):
        dist.broadcast(state[name], dist.get_global_rank(group, 0), group=group)
