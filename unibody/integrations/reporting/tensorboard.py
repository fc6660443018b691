"""TensorBoard: event files below output_dir/runs, which `tensorboard --logdir` shows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from unibody.integrations.reporting.base import ReportingCallback
from unibody.training.state import TrainerState


class TensorBoardCallback(ReportingCallback):
    """Scalars by step, and settings and configuration as texts; the folder is TENSORBOARD_LOGGING_DIR, or one for each run."""

    package = "tensorboard"

    def __init__(self, tb_writer: Any = None) -> None:
        super().__init__()
        self.given = self.writer = tb_writer

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            run = args.run_name or time.strftime("%Y-%m-%d_%H-%M-%S")
            folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or str(Path(args.output_dir, "runs", run))
            self.writer = SummaryWriter(folder, purge_step=state.global_step + 1 if state.global_step else None)
        self.writer.add_text("args", args.to_json_string())
        config: Any = getattr(model, "config", None)
        if hasattr(config, "to_dict"):
            self.writer.add_text("model_config", json.dumps(config.to_dict(), default=str, indent=2))

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, state.global_step)
        self.writer.flush()

    def end(self) -> None:
        if self.writer is not self.given:
            self.writer.close()
            self.writer = None
