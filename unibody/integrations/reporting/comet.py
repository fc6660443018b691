"""Comet; COMET_API_KEY, COMET_PROJECT_NAME, COMET_START_ONLINE=0, COMET_OFFLINE_DIRECTORY and its other variables hold."""

from __future__ import annotations

import os
from typing import Any

from unibody.integrations.reporting.base import ReportingCallback, settings
from unibody.training.state import TrainerState


class CometCallback(ReportingCallback):
    """Metrics by step and settings as parameters, in the program's experiment or one of its own.

    COMET_START_ONLINE=0 makes an offline experiment, to upload later; COMET_LOG_ASSETS=1 uploads checkpoints.
    """

    package = "comet"

    def __init__(self) -> None:
        super().__init__()
        self.experiment: Any = None
        self.owned = False

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        import comet_ml

        self.experiment = comet_ml.get_running_experiment()
        if self.experiment is None:
            online = os.environ.get("COMET_START_ONLINE")
            self.experiment = comet_ml.start(
                online=None if online is None else online.upper() in ("1", "TRUE"),
                project_name=os.environ.get("COMET_PROJECT_NAME", args.project),
                mode=os.environ.get("COMET_MODE"),
            )
            self.owned = True
            if args.run_name is not None:
                self.experiment.set_name(args.run_name)
        self.experiment.log_parameters(settings(args, model))

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        self.experiment.log_metrics(values, step=state.global_step, epoch=state.epoch)

    def save(self, args: Any, state: TrainerState) -> None:
        if os.environ.get("COMET_LOG_ASSETS", "").upper() in ("1", "TRUE"):
            folder = f"{args.output_dir}/checkpoint-{state.global_step}"
            self.experiment.log_asset_folder(folder, log_file_name=True, step=state.global_step)

    def end(self) -> None:
        if self.owned:
            self.experiment.end()
            self.owned = False
