"""Where a run is, and what callbacks ask of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from unibody.core.hub import read_json
from unibody.core.saving import write_json

FORMAT_VERSION = 1  # of trainer_state.json and what lies beside it


@dataclass
class TrainerState:
    """Where a run is; trainer_state.json holds it, and what is logged is in `log_history`."""

    epoch: float = 0.0  # epochs done, with the part of the present one
    global_step: int = 0  # optimizer steps done
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)
    position: dict[str, int] | None = None  # the epoch, and how many examples of it are done
    loss_sum: float = 0.0  # of the steps since the last log
    steps_summed: int = 0
    total_loss: float = 0.0  # of all steps
    skipped_steps: int = 0  # whose loss or gradient was not finite
    format_version: int = FORMAT_VERSION

    def save_to_json(self, json_path: str | Path) -> None:
        write_json(Path(json_path), dataclasses.asdict(self))

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> Self:
        """The state of a file; keys that it does not know are left out. ValueError: no such file, or from a later release."""
        values = read_json(Path(json_path))
        found = values.get("format_version", FORMAT_VERSION)
        if not isinstance(found, int) or found > FORMAT_VERSION:
            raise ValueError(
                f"{json_path} has format_version {found}, and this release reads {FORMAT_VERSION}: update it"
            )
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names and value is not None})


@dataclass
class TrainerControl:
    """What callbacks ask for; the loop does it and takes the flag down."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False

    def new_step(self) -> None:
        self.should_save = self.should_evaluate = self.should_log = False
