"""MLflow, in its small or its full package; MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_RUN_ID and the like hold."""

from __future__ import annotations

import json
import math
import os
from itertools import islice
from pathlib import Path
from typing import Any

from unibody.integrations.reporting.base import ReportingCallback, settings
from unibody.training.state import TrainerState

LONGEST = 500  # characters of a parameter's value that every server takes
AT_ONCE = 100  # parameters of one request


class MLflowCallback(ReportingCallback):
    """Metrics by step and settings as parameters, in the program's run or one of its own.

    HF_MLFLOW_LOG_ARTIFACTS=1 copies each checkpoint to the run's artifacts; MLFLOW_TAGS is a JSON object of tags;
    MLFLOW_NESTED_RUN=1 begins a run inside of the program's.
    """

    package = "mlflow"

    def __init__(self) -> None:
        super().__init__()
        self.owned = False

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        import mlflow

        nested = is_set("MLFLOW_NESTED_RUN")
        if experiment := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            mlflow.set_experiment(experiment)
        if mlflow.active_run() is None or nested:
            mlflow.start_run(run_name=args.run_name, nested=nested)
            self.owned = True
        if tags := os.environ.get("MLFLOW_TAGS"):
            mlflow.set_tags(json.loads(tags))
        fitting = ((name, str(value)) for name, value in settings(args, model).items())
        parameters = iter([(name, value) for name, value in fitting if len(value) <= LONGEST])
        while part := dict(islice(parameters, AT_ONCE)):
            mlflow.log_params(part)

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        import mlflow

        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        mlflow.log_metrics(finite, step=state.global_step)

    def save(self, args: Any, state: TrainerState) -> None:
        if is_set("HF_MLFLOW_LOG_ARTIFACTS"):
            import mlflow

            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            mlflow.log_artifacts(str(folder), artifact_path=folder.name)

    def end(self) -> None:
        if self.owned:
            import mlflow

            mlflow.end_run()
            self.owned = False


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "TRUE")
