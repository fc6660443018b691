"""Several processes that each hold a shard of every weight, gradient and optimizer state (FSDP, 2304.11277; torch's second version).

A unit of the model, usually a layer, is whole on a process only while it computes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unibody import deferral
from unibody.integrations.fsdp import is_fsdp_managed_module
from unibody.meshes import sharded_mesh
from unibody.training.arguments import TrainingArguments
from unibody.training.checkpoints import MODEL_PARTS, OPTIMIZER_PARTS, has_adapters
from unibody.training.engines import sharded_checkpoints as stored
from unibody.training.engines.data_parallel import Engine
from unibody.training.engines.sharded_modules import shard_model
from unibody.training.recomputing import enable_gradient_checkpointing

OF_DDP = ("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers")


class FullyShardedEngine(Engine):
    """One process or several, each with its shards; with replicas (HSDP) a group of processes has them all."""

    resumes_from: ClassVar[tuple[str, ...]] = (f"optimizer.pt or {OPTIMIZER_PARTS}", "scheduler.pt")

    def __init__(self, args: TrainingArguments) -> None:
        assert args.sharding is not None
        self.config = config = args.sharding
        if config.offload:  # accelerate then starts a backend for tensors on the CPU, too
            os.environ["FSDP_OFFLOAD_PARAMS"] = "true"
        super().__init__(args)
        if config.offload and self.device.type == "cpu":
            raise ValueError("fsdp offloads shards to the CPU, which is where this run computes: leave 'offload' out")
        if idle := [name for name in OF_DDP if getattr(args, name) is not None]:
            warnings.warn(f"{', '.join(idle)}: no effect with fsdp, leave it out", stacklevel=4)
        sizes = config.dp_replicate_size, config.dp_shard_size
        self.mesh = sharded_mesh(self.device.type, config.hybrid, *sizes)
        self.sharded: Any = None

    def place_model(self, model: nn.Module) -> None:
        """Shards the model in place; its parameters are other objects afterwards."""
        if not is_fsdp_managed_module(model):
            if self.config.activation_checkpointing and not self.args.gradient_checkpointing:
                enable_gradient_checkpointing(model, self.args.gradient_checkpointing_kwargs)
            shard_model(model, self.config, self.mesh, self.device, self.precision())
        self.sharded = model
        deferral.expect(False)  # a model that is loaded later is another's

    def precision(self) -> Any:
        """In which types units compute, and gradients are summed: with bf16 and fp16, in these and in float32."""
        from torch.distributed.fsdp import MixedPrecisionPolicy

        half = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
        chosen: dict[str, Any] = {} if half is None else {"param_dtype": half, "reduce_dtype": torch.float32}
        return MixedPrecisionPolicy(**{**chosen, **dict(self.config.precision)})

    def prepare(self, model: nn.Module, make_optimizer: Callable[[nn.Module], Any]) -> None:
        super().prepare(model, make_optimizer)
        there = set(model.parameters())
        if any(p not in there for group in self.optimizer.param_groups for p in group["params"]):
            raise ValueError(
                "the optimizer has parameters from before the model was sharded: give optimizer_cls_and_kwargs, "
                "or set optim, and the trainer makes it"
            )
        if isinstance(self.optimizer, torch.optim.Adafactor):
            raise ValueError("Adafactor does not work on shards in this release of torch: choose another optim")

    def wrap(self, model: Any) -> Any:
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing: units cast their weights and inputs themselves."""
        return nullcontext()

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        self.sharded.set_requires_gradient_sync(last)
        return nullcontext()

    def clip(self, max_norm: float) -> float:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm: Any = nn.utils.get_total_norm([p.grad for p in parameters])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if max_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        return float(norm)

    def save_model(self, model: nn.Module, folder: Path, whole: bool = True) -> None:
        if whole or not self.config.sharded_checkpoints or has_adapters(model):
            stored.save_whole(model, folder, keep=self.is_main_process)
        else:
            stored.save_sharded(model, folder, first=self.is_main_process)

    def load_model(self, model: nn.Module, folder: Path) -> None:
        """Fills the model from either kind of checkpoint, whatever kind this run writes."""
        load = stored.load_sharded if (folder / MODEL_PARTS).is_dir() else stored.load_whole
        load(model, folder)

    def save_optimizer(self, folder: Path) -> None:
        if self.config.sharded_checkpoints:
            stored.save_sharded_optimizer(self.sharded, self.optimizer, folder)
        else:
            state = stored.whole_optimizer(self.optimizer, keep=self.is_main_process)
            if self.is_main_process:
                torch.save(state, folder / "optimizer.pt")
        if self.is_main_process and self.args.fp16:
            torch.save(self.scaler.state_dict(), folder / "scaler.pt")

    def load_optimizer(self, folder: Path) -> None:
        if (folder / OPTIMIZER_PARTS).is_dir():
            stored.load_sharded_optimizer(self.sharded, self.optimizer, folder)
        else:
            stored.load_whole_optimizer(self.optimizer, folder)
        if self.args.fp16:
            self.scaler.load_state_dict(torch.load(folder / "scaler.pt", weights_only=True))
