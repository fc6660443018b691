"""DeepSpeed's ZeRO (1910.02054), driven directly: optimizer, gradients and weights are spread over the processes, by its stage.

Between the trainer and DeepSpeed stand two differences. The trainer wants to know the gradient's norm before the step, to leave
the weights alone where it is not finite; and it says itself which batch is the last of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.integrations.deepspeed.gradients import forget_gradient, gradient_norm
from unibody.integrations.deepspeed.initialization import (
    deepspeed_init,
    deepspeed_load_checkpoint,
    settle_for_inference,
)
from unibody.integrations.deepspeed.partition import is_partitioned, load_partitioned, whole_state
from unibody.integrations.deepspeed.processes import start_deepspeed
from unibody.logging import get_logger
from unibody.training.arguments import TrainingArguments
from unibody.training.engines.data_parallel import Engine

logger = get_logger(__name__)
GATHER = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
REMEDY = "`python CHECKPOINT/zero_to_fp32.py CHECKPOINT OUT --safe_serialization` writes them whole"


class DeepSpeedEngine(Engine):
    """An engine of DeepSpeed for each run; checkpoints hold its part of each process."""

    resumes_from: ClassVar[tuple[str, ...]] = ("latest", "scheduler.pt")

    def __init__(self, args: TrainingArguments) -> None:
        super().__init__(args)
        self.config = args.hf_deepspeed_config
        self.deepspeed = start_deepspeed(args.ddp_backend, timedelta(seconds=args.ddp_timeout))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)  # deepspeed has its own
        self.dtype: torch.dtype = self.config.dtype()
        self.saved: Path | None = None  # where the parts of this step are already
        self.told = False

    def place_model(self, model: nn.Module) -> None:
        """To the device; under ZeRO-3 deepspeed brings each weight there, a part of it to each process."""
        if not self.config.is_zero3():
            super().place_model(model)

    def start(self, trainer: Any, steps: int) -> None:
        self.check_settings()
        optimizer, scheduler = deepspeed_init(trainer, steps)
        config = self.config.completed(self.args)
        self.initialize(trainer.model, config, optimizer)
        self.optimizer = trainer.optimizer = self.model.optimizer
        if scheduler is None and "scheduler" in config:
            scheduler, self.model.lr_scheduler = self.model.lr_scheduler, None  # the trainer steps it
        elif scheduler is None:
            scheduler = trainer.create_scheduler(steps, self.model.basic_optimizer)
        trainer.lr_scheduler = scheduler

    def check_settings(self) -> None:
        """ValueError: settings that DeepSpeed would not keep to."""
        if self.dtype == torch.float16 and not self.config.is_true("zero_optimization.stage"):
            raise ValueError(
                "without ZeRO, DeepSpeed does not scale the loss in float16: set zero_optimization.stage to 1, or bf16"
            )
        if self.args.torch_compile:
            raise ValueError(
                "torch_compile is not for DeepSpeed: leave it out, and see the section compile of its configuration"
            )
        if self.args.push_to_hub and self.config.is_zero3() and not self.config.is_true(GATHER):
            raise ValueError(f"push_to_hub uploads whole weights: set {GATHER} to true")

    def prepare_evaluation(self, trainer: Any) -> None:
        """Lets a model that is partitioned, and not trained yet, gather its weights as it computes."""
        if self.config.is_zero3() and self.model is None:
            config = copy.deepcopy(self.config)
            settle_for_inference(config, self.args, trainer.model)
            self.initialize(trainer.model, config.completed(self.args), None)

    def initialize(self, model: nn.Module, config: dict[str, Any], optimizer: Any) -> None:
        if self.model is not None:
            self.model.destroy()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.model, *_ = self.deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            model_parameters=trained if "optimizer" in config else None,
            config=config,
            dist_init_required=False,
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing: the weights have the type that is computed in."""
        return nullcontext()

    def place(self, values: Any) -> Any:
        """The same values on this device; those that are a computation's numbers have its type."""
        placed = super().place(values)
        return placed.to(self.dtype) if isinstance(placed, Tensor) and placed.is_floating_point() else placed

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        self.model.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss, scale_wrt_gas=False)

    def clip(self, max_norm: float) -> float:
        """The norm of the gradient; deepspeed clips it in the step."""
        return gradient_norm(self.model)

    def step(self) -> bool:
        self.model.step()
        return bool(self.model.was_step_applied())

    def discard(self) -> None:
        forget_gradient(self.model)

    def save_model(self, model: nn.Module, folder: Path, whole: bool = True) -> None:
        """Writes the whole model; under ZeRO-3 only if the configuration wants it gathered, otherwise each process its part."""
        if not is_partitioned(model):
            super().save_model(model, folder)
        elif self.model is None or self.config.is_true(GATHER):
            state = whole_state(model, keep=self.is_main_process)
            with replaced_state(model, state):
                super().save_model(model, folder)
        else:
            config: Any = getattr(model, "config", None)
            if self.is_main_process and hasattr(config, "save_pretrained"):
                config.save_pretrained(folder)
            self.save_parts(folder)
            self.saved = folder
            if not self.told:
                logger.warning("checkpoints hold the weights in parts, for %s is not set: %s", GATHER, REMEDY)
            self.told = True

    def load_model(self, model: nn.Module, folder: Path) -> None:
        """Fills the model with the weights that a checkpoint holds in parts, or whole; with the former comes the optimizer."""
        if self.model is not None and (folder / "latest").is_file():
            self.check_parts(folder)
            deepspeed_load_checkpoint(self.model, folder, load_module_strict=not has_adapters(model))
        elif is_partitioned(model):
            load_partitioned(model, folder)
        else:
            super().load_model(model, folder)

    def save_optimizer(self, folder: Path) -> None:
        """Writes what each process has: its parts of the optimizer, and of the weights."""
        if self.saved != folder:
            self.save_parts(folder)
        self.saved = None

    def save_parts(self, folder: Path) -> None:
        self.model.save_checkpoint(str(folder), exclude_frozen_parameters=has_adapters(self.model.module))

    def load_optimizer(self, folder: Path) -> None:
        """Nothing: it came with the weights."""

    def check_parts(self, folder: Path) -> None:
        """ValueError: the checkpoint was written by another number of processes."""
        tag = (folder / "latest").read_text(encoding="utf-8").strip()
        found = len(list((folder / tag).glob("*zero_pp_rank_*_optim_states.pt")))
        if found not in (0, self.world_size):
            raise ValueError(
                f"{folder} holds the parts of {found} processes, and there are {self.world_size}: resume with as many, or start a new "
                "run from its weights"
            )


def has_adapters(model: Any) -> bool:
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def replaced_state(model: nn.Module, state: dict[str, Tensor]) -> Iterator[None]:
    """Where it is entered, the model's state dict is this one."""
    vars(model)["state_dict"] = lambda *_, **__: dict(state)
    try:
        yield
    finally:
        del vars(model)["state_dict"]
