"""The loss of one batch, and its share in the loss of a step: a mean over label tokens, however they are split into batches.

A step over several batches, or processes, so has the gradient of one batch that holds them all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100


def innermost(model: Any) -> Any:
    """The model that adapters or a compiler have wrapped."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_causal(model: Any) -> bool:
    """Whether each token is predicted from those before it: the first label of a row then counts for nothing."""
    inner = innermost(model)
    return getattr(inner, "auto_class", "") == "AutoModelForCausalLM" or type(inner).__name__.endswith("ForCausalLM")


def takes_items(model: Any) -> bool:
    """Whether the model's own loss divides by `num_items_in_batch`."""
    return "num_items_in_batch" in inspect.signature(innermost(model).forward).parameters


def count_items(model: Any, batch: Any) -> int:
    """How many labels the loss of a batch is the mean of; 0: none, or the batch has no `labels`."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor):
        return 0
    if labels.is_floating_point():
        return labels.numel()
    if is_causal(model):
        labels = labels[..., 1:]
    return int((labels != IGNORED).sum())


def count_tokens(batch: Any, padding: bool = True) -> int:
    """How many input tokens a batch has, with or without padding; 0: it has no `input_ids`."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor):
        return 0
    mask = None if padding else batch.get("attention_mask")
    return ids.numel() if mask is None else int(mask.sum())


def call(model: Any, inputs: Any) -> Any:
    """The model's outputs for a batch: keywords from a mapping, positions from a sequence."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list | tuple) else model(inputs)


def find_loss(outputs: Any) -> Tensor | None:
    """The loss among a model's outputs: under that name, the first of a plain tuple, or all that there is."""
    if isinstance(outputs, Mapping):
        return outputs.get("loss")
    if hasattr(outputs, "loss"):
        loss: Tensor | None = outputs.loss
        return loss
    first = outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs
    return first if isinstance(first, Tensor) and first.dim() == 0 else None


def smoothed_loss(factor: float, causal: bool) -> Callable[..., Tensor]:
    """A loss function of logits and labels: cross-entropy with labels of which a share is spread evenly (1512.00567, section 7)."""

    def loss(outputs: Any, labels: Any, num_items_in_batch: float | None = None) -> Tensor:
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        if not (isinstance(logits, Tensor) and isinstance(labels, Tensor)) or labels.is_floating_point():
            raise ValueError("label smoothing needs logits, and classes as labels: set label_smoothing_factor=0")
        if causal:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        rows, expected = logits.flatten(0, -2).float(), labels.flatten()
        total = cross_entropy(rows, expected, ignore_index=IGNORED, label_smoothing=factor, reduction="sum")
        return total / ((expected != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)

    return loss


def find_predictions(outputs: Any, ignored: list[str]) -> Any:
    """What is predicted: all outputs but loss, cache and `ignored` ones; alone if there is one."""
    skipped = {"loss", "past_key_values", *ignored}
    if isinstance(outputs, Mapping):
        found = [value for name, value in outputs.items() if name not in skipped]
    elif hasattr(outputs, "_fields"):
        found = [value for name, value in zip(outputs._fields, outputs, strict=True) if name not in skipped]
    elif isinstance(outputs, list | tuple):
        found = list(outputs[1:] if find_loss(outputs) is not None else outputs)
    else:
        found = [] if find_loss(outputs) is not None else [outputs]
    kept = tuple(value for value in found if value is not None)
    return kept[0] if len(kept) == 1 else kept or None
