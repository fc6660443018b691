"""One process, or several that each hold the whole model: forward, backward, clip, step, save, load, and talk to the others.

The trainer knows a model and an optimizer only through an engine; one that shards the model overrides what differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from unibody.integrations import require
from unibody.processes import HOLDERS, leave_at_exit
from unibody.training.arguments import TrainingArguments
from unibody.training.checkpoints import load_model, save_model


class Engine:
    """One process or several, each with the whole model; accelerate says which device and which processes there are."""

    # What a checkpoint needs besides weights and trainer_state.json.
    resumes_from: ClassVar[tuple[str, ...]] = ("optimizer.pt", "scheduler.pt")

    def __init__(self, args: TrainingArguments) -> None:
        require("accelerate", "The trainer")
        from accelerate import PartialState

        self.args = args
        options: dict[str, Any] = {} if args.ddp_backend is None else {"backend": args.ddp_backend}
        options["timeout"] = timedelta(seconds=args.ddp_timeout)
        on_cpu = args.use_cpu or not torch.accelerator.is_available()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import_module(
                "torch._dynamo"
            )  # as DistributedDataParallel does; after the group is made, it would hold it for good
        joined = distributed.is_initialized()
        self.processes = PartialState(cpu=on_cpu, **options)
        HOLDERS.add(self)
        if distributed.is_initialized() and not joined:
            leave_at_exit()
        self.device: torch.device = torch.device("cpu") if on_cpu else self.processes.device
        self.model: Any = None  # as it is called; what it wraps is the trainer's model
        self.optimizer: Any = None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=args.fp16)
        if args.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32

    @property
    def world_size(self) -> int:
        return int(self.processes.num_processes)

    @property
    def rank(self) -> int:
        return int(self.processes.process_index)

    @property
    def is_main_process(self) -> bool:
        return bool(self.processes.is_main_process)

    @property
    def is_local_main_process(self) -> bool:
        return bool(self.processes.is_local_main_process)

    @property
    def data_shards(self) -> int:
        """How many parts a global batch is split into; processes that share a model see the same part."""
        return self.world_size

    @property
    def data_shard(self) -> int:
        """Which part this process sees."""
        return self.rank

    def place_model(self, model: nn.Module) -> None:
        """Brings a model to where it computes. ValueError: processes share it, and the settings do not say so."""
        if (found := getattr(model, "parallelism", None)) is not None and not self.args.parallelism_config:
            raise ValueError(f"the model is split over processes: set parallelism_config={{'tp_size': {found.size}}}")
        model.to(self.device)

    def start(self, trainer: Any, steps: int) -> None:
        """Makes what a run of so many steps needs: the trainer's optimizer and schedule, and `self.model`."""
        self.prepare(trainer.model, lambda _: trainer.create_optimizer())
        trainer.optimizer = self.optimizer
        trainer.lr_scheduler = trainer.create_scheduler(steps, trainer.optimizer)

    def prepare_evaluation(self, trainer: Any) -> None:
        """Lets a model compute that is not trained, or not yet."""

    def prepare(self, model: nn.Module, make_optimizer: Callable[[nn.Module], Any]) -> None:
        """Makes the model's optimizer, and wraps both for training; from now on `self.model` is what is called."""
        self.optimizer = make_optimizer(model)
        self.model = self.wrap(self.compiled(model) if self.args.torch_compile else model)

    def compiled(self, model: nn.Module) -> Any:
        options = {"backend": self.args.torch_compile_backend, "mode": self.args.torch_compile_mode}
        chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return torch.compile(model, **chosen)

    def wrap(self, model: Any) -> Any:
        """The model that averages its gradients over the processes."""
        if self.world_size == 1:
            return model
        options = {
            "find_unused_parameters": self.args.ddp_find_unused_parameters,
            "bucket_cap_mb": self.args.ddp_bucket_cap_mb,
            "broadcast_buffers": self.args.ddp_broadcast_buffers,
            "static_graph": self.args.ddp_static_graph,
        }
        places = None if self.device.type == "cpu" else [self.device]
        chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return nn.parallel.DistributedDataParallel(model, device_ids=places, **chosen)

    def autocast(self) -> AbstractContextManager[Any]:
        """Where it is entered, operations run in the type that the settings name."""
        if not (self.args.bf16 or self.args.fp16):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.args.bf16 else torch.float16)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one of several batches of a step: processes meet at the last only."""
        if last or not hasattr(self.model, "no_sync"):
            return nullcontext()
        context: AbstractContextManager[Any] = self.model.no_sync()
        return context

    def backward(self, loss: Tensor) -> None:
        scaled: Any = self.scaler.scale(loss)
        scaled.backward()

    def clip(self, max_norm: float) -> float:
        """Scales the gradients down to this norm, 0: not at all; the norm that they had."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return float(nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf")))

    def step(self) -> bool:
        """Updates the weights, and forgets the gradients; False: only the latter, for the loss in float16 was scaled too high."""
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return self.scaler.get_scale() >= before

    def discard(self) -> None:
        """Forgets the gradients of a step that is not taken."""
        self.scaler.update()
        self.optimizer.zero_grad()

    def empty_cache(self) -> None:
        """Gives back memory of the device that nothing uses."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()

    def place(self, values: Any) -> Any:
        """The same values, every tensor on this device; those that are a computation's numbers keep their type."""
        if isinstance(values, Tensor):
            return values.to(self.device, non_blocking=True)
        if isinstance(values, dict):
            return {name: self.place(value) for name, value in values.items()}
        if isinstance(values, list | tuple):
            return type(values)(self.place(value) for value in values)
        return values

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Each number, summed over the parts of the global batch, in double precision."""
        if self.world_size == 1:
            return [float(number) for number in numbers]
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.tensor(numbers, dtype=kind, device=self.device)
        torch.distributed.all_reduce(total)
        return [number * self.data_shards / self.world_size for number in total.tolist()]

    def gather(self, values: list[Any]) -> list[list[Any]]:
        """The lists of all parts of the data, in their order; each process gets them."""
        if self.world_size == 1:
            return [values]
        every: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(every, values)
        return every[:: self.world_size // self.data_shards]

    def barrier(self) -> None:
        """Waits for the other processes."""
        self.processes.wait_for_everyone()

    def let_go(self) -> None:
        """Forgets what holds the group of processes, DistributedDataParallel for one, at the end of the program."""
        self.model = None

    def save_model(self, model: nn.Module, folder: Path, whole: bool = True) -> None:
        """Writes the model; every process calls it. Not `whole`: to go on from, in whatever parts."""
        if self.is_main_process:
            save_model(model, folder)

    def load_model(self, model: nn.Module, folder: Path) -> None:
        """Fills the model with the weights that `save_model` wrote."""
        load_model(model, folder)

    def save_optimizer(self, folder: Path) -> None:
        """Writes what the optimizer remembers; every process calls it."""
        if self.is_main_process:
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
            if self.args.fp16:
                torch.save(self.scaler.state_dict(), folder / "scaler.pt")

    def load_optimizer(self, folder: Path) -> None:
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
        if self.args.fp16:
            self.scaler.load_state_dict(torch.load(folder / "scaler.pt", weights_only=True))
