"""Neighbouring processes that share a model, each with a part of every layer; groups of them share the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unibody.meshes import COPY, TENSOR, tensor_mesh
from unibody.tensor_parallel.gathering import join, whole_state
from unibody.tensor_parallel.layers import plan_splits, sharded, split_model
from unibody.training.arguments import TrainingArguments
from unibody.training.checkpoints import load_model
from unibody.training.engines.data_parallel import Engine

BUCKET = 25 * 2**20  # bytes of gradients that are averaged at once


class TensorParallelEngine(Engine):
    """`parallelism_config["tp_size"]` processes see the same data; the gradients of equal parts are averaged.

    Checkpoints are those of one process: a run may go on with another number of them.
    """

    def __init__(self, args: TrainingArguments) -> None:
        super().__init__(args)
        sizes = args.parallelism_config
        if args.fp16:
            raise ValueError("fp16 scales losses, which a model that is split over processes cannot do: set bf16")
        mesh = tensor_mesh(sizes["tp_size"])
        self.data, self.tensor = mesh[COPY], mesh[TENSOR]
        if sizes.get("dp_replicate_size", self.data.size()) != self.data.size():
            product = sizes["dp_replicate_size"] * sizes["tp_size"]
            raise ValueError(f"parallelism_config {sizes} is for {product} processes, and there are {self.world_size}")

    @property
    def data_shards(self) -> int:
        return int(self.data.size())

    @property
    def data_shard(self) -> int:
        return int(self.data.get_local_rank())

    def place_model(self, model: Any) -> None:
        """Splits the model, unless it was loaded so. ValueError: it is split otherwise, or says no plan."""
        super().place_model(model)
        if getattr(model, "parallelism", None) is None:
            if not hasattr(model, "config"):
                raise ValueError(
                    f"{type(model).__name__} declares no plan by which processes split it: train a model of the library, "
                    "or leave out parallelism_config"
                )
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)  # each process may have drawn its own
            split_model(model, plan_splits(model, self.tensor, "auto"))
        elif model.parallelism.size != self.tensor.size():
            raise ValueError(
                f"the model was loaded in {model.parallelism.size} parts, and parallelism_config says tp_size="
                f"{self.tensor.size()}: make them equal"
            )
        else:
            group = self.data.get_group()
            for tensor in model.state_dict().values():
                dist.broadcast(own(tensor), dist.get_global_rank(group, 0), group=group)

    def wrap(self, model: Any) -> Any:
        return model

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        yield
        if last and self.data_shards > 1:
            self.average_gradients()

    def average_gradients(self) -> None:
        """Over the processes that hold the same part; one that has no gradient counts as zero, unless none has."""
        group, trained = self.data.get_group(), [p for p in self.model.parameters() if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=self.device)
        dist.all_reduce(used, dist.ReduceOp.MAX, group)
        found = []
        for parameter, is_used in zip(trained, used.tolist(), strict=True):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                found.append(own(parameter.grad))
        for bucket in buckets(found):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat, group=group)
            flat /= self.data_shards
            for gradient, mean in zip(
                bucket, torch.split(flat, [gradient.numel() for gradient in bucket]), strict=True
            ):
                gradient.copy_(mean.view_as(gradient))

    def clip(self, max_norm: float) -> float:
        """The norm is of the whole model: of parts, the squares are summed over the processes."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        parts = [own(gradient) for gradient in gradients if isinstance(gradient, DTensor)]
        others = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        total = nn.utils.get_total_norm(parts).square().to(self.device)
        dist.all_reduce(total, group=self.tensor.get_group())
        norm = (total + nn.utils.get_total_norm(others).square().to(self.device)).sqrt()
        if max_norm > 0:
            scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            for gradient in [*parts, *others]:
                gradient.mul_(scale)
        return float(norm)

    def save_model(self, model: Any, folder: Path, whole: bool = True) -> None:
        state = whole_state(model, keep=self.is_main_process)
        if self.is_main_process:
            model.save_pretrained(folder, state_dict=state)

    def load_model(self, model: Any, folder: Path) -> None:
        found = model.parallelism

        def fill(name: str, tensor: Any, stored: Tensor) -> None:
            split = found.splits.get(name)
            own(tensor).copy_(stored if split is None else split.take(stored, found.rank, found.size))

        load_model(model, folder, fill)

    def step(self) -> bool:
        """Fused optimizers take the parameters of a group at once, and cannot mix DTensors with others: these go apart."""
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [
            {**group, "params": alike}
            for group in groups
            for kind in (True, False)
            if (alike := [p for p in group["params"] if isinstance(p, DTensor) == kind])
        ]
        try:
            return super().step()
        finally:
            self.optimizer.param_groups = groups

    def save_optimizer(self, folder: Path) -> None:
        """Writes what the optimizer of one process would remember."""
        remembered, kept = self.optimizer.state_dict(), dict[int, dict[str, Any]]()
        for number, parameter in enumerate(self.parameters()):
            for name, value in remembered["state"].get(number, {}).items():
                if isinstance(value, DTensor):
                    value = join(value, self.split_of(parameter), self.trained.parallelism)
                if self.is_main_process:
                    kept.setdefault(number, {})[name] = value.cpu() if isinstance(value, Tensor) else value
        if self.is_main_process:
            torch.save({**remembered, "state": kept}, folder / "optimizer.pt")

    def load_optimizer(self, folder: Path) -> None:
        loaded = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        found = self.trained.parallelism
        for number, parameter in enumerate(self.parameters()):
            split, remembered = self.split_of(parameter), loaded["state"].get(number, {})
            for name, value in remembered.items():
                if split is not None and isinstance(value, Tensor) and value.shape == parameter.shape:
                    part = split.take(value, found.rank, found.size).to(self.device, copy=True)
                    remembered[name] = sharded(part, split, found.mesh, parameter).detach()
        self.optimizer.load_state_dict(loaded)

    @property
    def trained(self) -> Any:
        """The model, without what a compiler has put around it."""
        return getattr(self.model, "_orig_mod", self.model)

    def parameters(self) -> list[Any]:
        """What the optimizer trains, in the order of its numbers."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def split_of(self, parameter: Any) -> Any:
        """How a parameter is split; None: each process has all of it."""
        splits = self.trained.parallelism.splits
        return next(
            (splits[name] for name, p in self.trained.named_parameters() if p is parameter and name in splits), None
        )


def own(tensor: Any) -> Any:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, of about BUCKET bytes."""
    found: list[Tensor] = []
    for tensor in tensors:
        if found and (tensor.dtype != found[0].dtype or sum(other.nbytes for other in found) >= BUCKET):
            yield found
            found = []
        found.append(tensor)
    if found:
        yield found
