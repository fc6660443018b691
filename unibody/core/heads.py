"""Losses and pooling of the heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, S, V] at each token with the next token's label [B, S]; -100 is no label."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(logits.device))


def last_token(values: Tensor, input_ids: Tensor | None, pad_token_id: int | None) -> Tensor:
    """values [B, S, …] at each row's last token that is not padding: [B, …]."""
    batch, length = values.shape[:2]
    if input_ids is None or pad_token_id is None:
        if batch > 1 and input_ids is not None:
            raise ValueError("rows of a batch end at their last token before padding: set config.pad_token_id")
        return values[:, -1]
    positions = torch.arange(length, device=values.device)
    last = (positions * (input_ids != pad_token_id).to(values.device)).argmax(-1)
    return values[torch.arange(batch, device=values.device), last]


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Loss of logits [B, L]: of the labels' numbers [B], of a label each as 0 or 1 [B, L], or of real values (regression).

    Without `problem_type`: regression if L is 1, otherwise by the type of the labels.
    """
    if problem_type == "regression" or (problem_type is None and logits.shape[-1] == 1):
        return F.mse_loss(logits.squeeze(), labels.squeeze().to(logits.dtype))
    if problem_type == "multi_label_classification" or (problem_type is None and labels.is_floating_point()):
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels.flatten())


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, S, L] with the number of each token's label [B, S]; -100 is no label."""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten().to(logits.device))


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean cross-entropy of both ends of an answer [B]; a position outside the text is no label."""
    length = start_logits.shape[1]
    start, end = (positions.flatten().clamp(0, length).to(start_logits.device) for positions in (start, end))
    return (
        F.cross_entropy(start_logits, start, ignore_index=length)
        + F.cross_entropy(end_logits, end, ignore_index=length)
    ) / 2
