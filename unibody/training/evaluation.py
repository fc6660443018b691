"""One pass over held-out data: losses, predictions and labels of all processes, in the data's order, and their metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unibody.training.losses import IGNORED
from unibody.training.outputs import EvalLoopOutput, EvalPrediction

if TYPE_CHECKING:
    from unibody.training.trainer import Trainer


def evaluation_loop(
    trainer: Trainer, loader: Any, *, loss_only: bool, ignore_keys: list[str] | None, prefix: str
) -> EvalLoopOutput:
    """Every number is the same for any number of processes: each batch is computed once, and counted once."""
    started, model, wanted = time.perf_counter(), trainer.model, trainer.args.include_for_metrics
    trainer.engine.prepare_evaluation(trainer)
    was_training = model.training
    model.eval()
    batches: list[tuple[int, float | None, Any, Any, Any]] = []
    by_batch, judged = trainer.args.batch_eval_metrics and not loss_only, dict[str, Any]()
    try:
        for number, inputs in enumerate(loader):
            size = batch_size(inputs)
            loss, predictions, labels = trainer.prediction_step(model, inputs, loss_only, ignore_keys)
            if trainer.preprocess_logits_for_metrics is not None and predictions is not None:
                predictions = trainer.preprocess_logits_for_metrics(predictions, labels)
            trainer.callback_handler.call("on_prediction_step")
            kept = inputs.get("input_ids") if "inputs" in wanted and isinstance(inputs, Mapping) else None
            mean, is_real = None if loss is None else float(loss), number < getattr(loader, "real", len(loader))
            if by_batch and trainer.compute_metrics is not None:
                batch = (size, mean, predictions, labels, kept)
                judged = judge_batch(trainer, [batch] if is_real else [], last=number == len(loader) - 1)
                predictions = labels = kept = None
            if is_real:
                batches.append((size, mean, to_numpy(predictions), to_numpy(labels), to_numpy(kept)))
    finally:
        model.train(was_training)
    shards = trainer.engine.gather(batches)
    longest = max(map(len, shards))
    ordered = [shard[i] for i in range(longest) for shard in shards if i < len(shard)]
    if not ordered:
        raise ValueError(f"the dataset of {prefix} is empty: there is nothing to evaluate")
    sizes, losses, *rest = zip(*ordered, strict=True)
    join = concatenate if trainer.args.eval_do_concat_batches else list_of_batches
    predictions, labels, inputs = (join(list(values)) for values in rest)
    samples, metrics = sum(sizes), judged
    if trainer.compute_metrics is not None and predictions is not None and labels is not None:
        every = (
            [loss for size, loss in zip(sizes, losses, strict=True) for _ in range(size)] if "loss" in wanted else None
        )
        metrics = dict(trainer.compute_metrics(EvalPrediction(predictions, labels, inputs, every)))
    metrics = {name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": plain(v) for name, v in metrics.items()}
    if losses[0] is not None:
        metrics[f"{prefix}_loss"] = sum(size * loss for size, loss in zip(sizes, losses, strict=True)) / samples
    seconds = time.perf_counter() - started
    metrics |= speed(prefix, seconds, samples=samples, steps=longest)
    return EvalLoopOutput(predictions, labels, metrics, samples)


def judge_batch(trainer: Trainer, found: list[Any], last: bool) -> dict[str, Any]:
    """What compute_metrics says of a batch of each process, one after the other, of which it has the sums; of the last, the result."""
    every = [batch for shard in trainer.engine.gather(found) for batch in shard]
    metrics: Any = {}
    for number, (size, loss, predictions, labels, inputs) in enumerate(every, 1):
        losses = [loss] * size if "loss" in trainer.args.include_for_metrics else None
        seen, result = EvalPrediction(predictions, labels, inputs, losses), last and number == len(every)
        assert trainer.compute_metrics is not None
        metrics = trainer.compute_metrics(seen, compute_result=result)
    return dict(metrics or {})


def speed(prefix: str, seconds: float, **counts: float) -> dict[str, float]:
    """The runtime, and how many of each were done in a second."""
    rates = {f"{prefix}_{name}_per_second": round(count / seconds, 3) for name, count in counts.items()}
    return {f"{prefix}_runtime": round(seconds, 4), **rates}


def batch_size(inputs: Any) -> int:
    """The rows of a batch: the length of its first tensor."""
    values = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, list | tuple) else [inputs]
    )
    return next((len(value) for value in values if isinstance(value, Tensor) and value.dim()), 1)


def to_numpy(values: Any) -> Any:
    """The same values as arrays of numpy; what has less precision than it knows becomes float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
    if isinstance(values, Mapping):
        return {name: to_numpy(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return tuple(to_numpy(value) for value in values)
    return values


def list_of_batches(batches: list[Any]) -> list[Any] | None:
    return None if batches[0] is None else batches


def concatenate(batches: list[Any]) -> Any:
    """Batches of arrays, or of tuples and mappings of them, as one; shorter rows are filled up with -100."""
    import numpy as np

    first = batches[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(concatenate(list(parts)) for parts in zip(*batches, strict=True))
    if isinstance(first, Mapping):
        return {name: concatenate([batch[name] for batch in batches]) for name in first}
    arrays = [np.atleast_1d(batch) for batch in batches]
    if arrays[0].ndim > 1:
        longest = max(array.shape[1] for array in arrays)
        gaps = [[(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)] for array in arrays]
        arrays = [
            np.pad(array, gap, constant_values=IGNORED) if gap[1][1] else array
            for array, gap in zip(arrays, gaps, strict=True)
        ]
    return np.concatenate(arrays)


def plain(value: Any) -> Any:
    """A number of numpy or torch as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) in (1, ()) else value
