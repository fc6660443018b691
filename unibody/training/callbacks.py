"""Callbacks: what is told of a run's events, and may ask for a log, an evaluation, a save or the end."""

from __future__ import annotations

from typing import Any

from unibody.logging import get_logger
from unibody.training.state import TrainerControl, TrainerState

logger = get_logger(__name__)
EVENTS = (
    *("on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin"),
    *("on_pre_optimizer_step", "on_optimizer_step", "on_substep_end", "on_step_end", "on_evaluate", "on_predict"),
    *("on_save", "on_log", "on_prediction_step", "on_push_begin"),
)

ANSWERED = {"on_log": "should_log", "on_evaluate": "should_evaluate", "on_save": "should_save"}


class TrainerCallback:
    """Its methods are called at a run's events with the settings, the state and the control, which they may change.

    By keyword they get model, processing_class, optimizer, lr_scheduler, train_dataloader and eval_dataloader; `on_log` also logs,
    `on_evaluate` and `on_predict` metrics. What `state_attributes` names is kept in checkpoints.
    """

    state_attributes: tuple[str, ...] = ()

    def on_init_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """The trainer is made."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Training begins."""

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Training has ended."""

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """An epoch begins."""

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """An epoch has ended."""

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """The first batch of a step comes next."""

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Gradients are there and clipped; the optimizer comes next."""

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """The weights are updated."""

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """A batch is done, and more belong to the step."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """A step is done, and counted."""

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """An evaluation is done."""

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any) -> Any:
        """A prediction is done."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """A checkpoint is written."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Values are logged."""

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """A batch of an evaluation or a prediction is done."""

    def on_push_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """An upload to the Hub begins."""


class CallbackHandler:
    """Tells its callbacks of each event in their order; a control that one returns replaces the other."""

    def __init__(self, callbacks: list[Any], trainer: Any) -> None:
        self.trainer, self.callbacks = trainer, list[TrainerCallback]()
        for callback in callbacks:
            self.add(callback)

    def add(self, callback: Any) -> None:
        """Adds an object or a class of callbacks."""
        made = callback() if isinstance(callback, type) else callback
        if any(type(made) is type(other) for other in self.callbacks):
            logger.warning("a second %s is added to the trainer's callbacks", type(made).__name__)
        self.callbacks.append(made)

    def find(self, callback: Any) -> TrainerCallback | None:
        """The object itself, or the first of the class."""
        same = (c for c in self.callbacks if (type(c) is callback if isinstance(callback, type) else c is callback))
        return next(same, None)

    def call(self, event: str, **values: Any) -> None:
        """Tells everyone of an event; what it was asked for by is taken down."""
        trainer = self.trainer
        if event in ANSWERED:
            setattr(trainer.control, ANSWERED[event], False)
        for callback in self.callbacks:
            answer = getattr(callback, event)(
                trainer.args, trainer.state, trainer.control, model=trainer.model,
                processing_class=trainer.processing_class, optimizer=trainer.optimizer,
                lr_scheduler=trainer.lr_scheduler, train_dataloader=trainer.train_dataloader,
                eval_dataloader=trainer.eval_dataloader, **values,
            )  # fmt: skip
            if answer is not None:
                trainer.control = answer

    def states(self) -> dict[str, Any]:
        """What the callbacks want to be kept, by their classes."""
        kept = [callback for callback in self.callbacks if callback.state_attributes]
        return {type(c).__name__: {name: getattr(c, name) for name in c.state_attributes} for c in kept}

    def restore(self, states: dict[str, Any]) -> None:
        for callback in self.callbacks:
            for name, value in states.get(type(callback).__name__, {}).items():
                if name in callback.state_attributes:
                    setattr(callback, name, value)
