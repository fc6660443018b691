"""Callbacks that steer a run: when to log, evaluate, save and stop."""

from __future__ import annotations

import signal
import threading
from typing import Any

from unibody.logging import get_logger
from unibody.training.callbacks import TrainerCallback
from unibody.training.choices import IntervalStrategy, SaveStrategy
from unibody.training.state import TrainerControl, TrainerState

logger = get_logger(__name__)


class DefaultFlowCallback(TrainerCallback):
    """Asks for logs, evaluations, checkpoints and the end, as the settings say."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        step, last = state.global_step, state.global_step >= state.max_steps
        if (step == 1 and args.logging_first_step) or due(args.logging_strategy, step, state.logging_steps):
            control.should_log = True
        if due(args.eval_strategy, step, state.eval_steps) and args.eval_delay <= step:
            control.should_evaluate = True
        if due(args.save_strategy, step, state.save_steps):
            control.should_save = True
        if last:
            control.should_training_stop = True
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.STEPS
            control.should_save |= args.save_strategy == SaveStrategy.STEPS

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
        control.should_evaluate |= args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch
        control.should_save |= args.save_strategy == SaveStrategy.EPOCH


def due(strategy: str, step: int, interval: int) -> bool:
    return strategy == "steps" and step % interval == 0


class EarlyStoppingCallback(TrainerCallback):
    """Ends a run after so many evaluations in which the metric has not improved by more than the threshold."""

    state_attributes = ("early_stopping_patience_counter",)

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if args.metric_for_best_model is None:
            raise ValueError("EarlyStoppingCallback needs to know which metric: set metric_for_best_model")
        if args.eval_strategy == IntervalStrategy.NO:
            raise ValueError("EarlyStoppingCallback needs evaluations to compare: set eval_strategy")

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        value = find_metric(args.metric_for_best_model, kwargs["metrics"])
        if value is None:  # of another of several datasets
            return
        gain = (
            0.0 if state.best_metric is None else (value - state.best_metric) * (1 if args.greater_is_better else -1)
        )
        if state.best_metric is None or gain > self.early_stopping_threshold:
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def find_metric(name: str, metrics: dict[str, Any]) -> float | None:
    """The value of a metric that is named with or without `eval_`."""
    value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
    return None if value is None else float(value)


class PreemptionCallback(TrainerCallback):
    """On SIGTERM, as Slurm and Kubernetes send it before they end a job: the step is finished, a checkpoint written, the run stopped.

    With several processes it is enough that one of them got the signal.
    """

    def __init__(self, engine: Any) -> None:
        self.engine, self.asked, self.before = engine, False, signal.SIG_DFL  # type: Any, bool, Any

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if self.engine.sum([self.asked])[0]:
            logger.warning("SIGTERM: saving at step %d, and stopping", state.global_step)
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
