"""What training, evaluation and prediction return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class TrainOutput(NamedTuple):
    global_step: int
    training_loss: float  # the mean over all steps
    metrics: dict[str, float]


class PredictionOutput(NamedTuple):
    predictions: Any  # numpy arrays, in the data's order; a tuple if the model gives several
    label_ids: Any
    metrics: dict[str, float]


class EvalLoopOutput(NamedTuple):
    predictions: Any
    label_ids: Any
    metrics: dict[str, float]
    num_samples: int


@dataclass
class EvalPrediction:
    """What `compute_metrics` gets: numpy arrays of all examples; it unpacks as predictions, label_ids."""

    predictions: Any
    label_ids: Any
    inputs: Any = None
    losses: Any = None

    def __iter__(self) -> Any:
        rest = [value for value in (self.inputs, self.losses) if value is not None]
        return iter((self.predictions, self.label_ids, *rest))

    def __getitem__(self, index: int) -> Any:
        return tuple(self)[index]
