"""Weights & Biases; WANDB_PROJECT, WANDB_MODE=offline, WANDB_DIR and its other variables hold."""

from __future__ import annotations

import os
from typing import Any

from unibody.integrations.reporting.base import ReportingCallback, settings
from unibody.training.state import TrainerState


class WandbCallback(ReportingCallback):
    """Values over train/global_step, in the program's run or one of its own, which stays open for a later evaluation.

    WANDB_LOG_MODEL=checkpoint uploads each checkpoint as an artifact; WANDB_WATCH is passed to `wandb.watch`.
    """

    package = "wandb"

    def __init__(self) -> None:
        super().__init__()
        self.run: Any = None

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        import wandb

        if wandb.run is None:
            name, project = args.run_name, os.environ.get("WANDB_PROJECT", args.project)
            wandb.init(project=project, name=name)
        self.run = wandb.run
        self.run.config.update(settings(args, model), allow_val_change=True)
        self.run.define_metric("train/global_step")
        self.run.define_metric("*", step_metric="train/global_step", step_sync=True)
        if (watched := os.environ.get("WANDB_WATCH", "false")) in ("all", "gradients", "parameters"):
            self.run.watch(model, log=watched, log_freq=max(100, state.logging_steps))

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        self.run.log({**values, "train/global_step": state.global_step})

    def save(self, args: Any, state: TrainerState) -> None:
        if os.environ.get("WANDB_LOG_MODEL", "false") == "checkpoint":
            import wandb

            artifact = wandb.Artifact(f"model-{self.run.id}", type="model", metadata={"step": state.global_step})
            artifact.add_dir(f"{args.output_dir}/checkpoint-{state.global_step}")
            self.run.log_artifact(artifact, aliases=[f"step-{state.global_step}"])
