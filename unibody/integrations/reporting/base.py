"""What all trackers share: only the first process reports, and a tracker that fails never stops a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from unibody.integrations.availability import require
from unibody.training.callbacks import TrainerCallback
from unibody.training.state import TrainerControl, TrainerState

SPLITS = ("eval", "test")


class ReportingCallback(TrainerCallback):
    """Calls `start` before the first values, `write` with each log, `save` with each checkpoint and `end` after training."""

    package: ClassVar[str | None] = None  # in the table of integrations; None: nothing is needed

    def __init__(self) -> None:
        if self.package is not None:
            require(self.package, f"{type(self).__name__}, which report_to asks for,")
        self.started = self.failed = False

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        """Begins a run, or goes on with the one that the program has begun."""

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        """Reports numbers by name, such as train/loss and eval/loss, at the state's step."""

    def save(self, args: Any, state: TrainerState) -> None:
        """A checkpoint has been written."""

    def end(self) -> None:
        """Closes the run, if `start` began it."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.failed = False
        self.begin(args, state, kwargs.get("model"))

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.begin(args, state, kwargs.get("model"))  # an evaluation without a training
        self.report(state, self.write, named(kwargs["logs"]), state)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.report(state, self.save, args, state)

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any) -> Any:
        self.begin(args, state, kwargs.get("model"))
        self.report(state, self.write, named(metrics), state)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.report(state, self.end)
        self.started = False

    def begin(self, args: Any, state: TrainerState, model: Any) -> None:
        if not self.started:
            self.started = True
            self.report(state, self.start, args, state, model)

    def report(self, state: TrainerState, call: Callable[..., None], *arguments: Any) -> None:
        """Calls it on the first process; the first failure is warned of, and is the tracker's last."""
        if not state.is_world_process_zero or self.failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  whatever a tracker does, the run goes on
            self.failed = True
            what = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"{type(self).__name__} failed, and reports no more; training goes on ({what})", stacklevel=2
            )


def named(logs: dict[str, Any]) -> dict[str, float]:
    """The numbers of a log by the names that dashboards group: eval_loss is eval/loss, loss is train/loss."""
    found = {}
    for name, value in logs.items():
        split, _, rest = name.partition("_")
        if isinstance(value, int | float):
            found[f"{split}/{rest}" if split in SPLITS and rest else f"train/{name}"] = value
    return found


def settings(args: Any, model: Any) -> dict[str, Any]:
    """What a run is described by: the model's configuration and the training arguments, as plain values."""
    config: Any = getattr(model, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return {**values, **args.to_sanitized_dict()}
