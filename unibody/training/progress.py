"""What a run shows on a terminal: a bar with loss and tokens per second, or lines."""

from __future__ import annotations

import time
from typing import Any

from unibody.training.callbacks import TrainerCallback
from unibody.training.state import TrainerControl, TrainerState


class ProgressCallback(TrainerCallback):
    """One bar over the steps, with the last loss and the tokens per second; one for each evaluation."""

    def __init__(self) -> None:
        self.training: Any = None
        self.prediction: Any = None
        self.shown: dict[str, str] = {}
        self.since = (0.0, 0)  # seconds and tokens when training began

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if state.is_local_process_zero:
            from tqdm import tqdm

            self.training = tqdm(total=state.max_steps, initial=state.global_step, desc="training", dynamic_ncols=True)
            self.since = (time.perf_counter(), state.num_input_tokens_seen)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if self.training is not None:
            start, tokens = self.since
            if (done := state.num_input_tokens_seen - tokens) > 0:
                self.shown["tokens/s"] = f"{done / (time.perf_counter() - start):.0f}"
                self.training.set_postfix(self.shown, refresh=False)
            self.training.update(state.global_step - self.training.n)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        logs = kwargs["logs"]
        if self.training is not None:
            for name in ("loss", "eval_loss"):
                if name in logs:
                    self.shown[name] = f"{logs[name]:.4g}"
            self.training.set_postfix(self.shown)

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if state.is_local_process_zero:
            from tqdm import tqdm

            if self.prediction is None:
                self.prediction = tqdm(total=len(kwargs["eval_dataloader"]), desc="evaluation", leave=False)
            self.prediction.update()

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.close_prediction()

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any) -> Any:
        self.close_prediction()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if self.training is not None:
            self.training.close()
            self.training = None

    def close_prediction(self) -> None:
        if self.prediction is not None:
            self.prediction.close()
            self.prediction = None


class PrinterCallback(TrainerCallback):
    """Each log as a line."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        if state.is_local_process_zero:
            print(kwargs["logs"])
