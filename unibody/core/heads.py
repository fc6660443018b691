"""Losses and pooling of the heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, S, L] with labels [B, S], where those are not -100."""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten().to(logits.device))


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Loss of logits [B, L] for labels that are numbers [B], yes or no for each (float, [B, L]) or values (regression)."""
    if problem_type == "regression" or (problem_type is None and logits.shape[1] == 1):
        return F.mse_loss(logits.squeeze(), labels.squeeze())
    if problem_type == "multi_label_classification" or (problem_type is None and labels.is_floating_point()):
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels.flatten())


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, S] with the positions [B] of an answer's ends, where those are in the text."""
    length = start_logits.shape[1]
    pairs = ((start_logits, start), (end_logits, end))
    losses = [F.cross_entropy(scores, at.flatten().clamp(0, length), ignore_index=length) for scores, at in pairs]
    return (losses[0] + losses[1]) / 2


def last_token(hidden: Tensor, input_ids: Tensor | None, pad_token_id: int | None) -> Tensor:
    """Each row's last token that is not padding [B, H], of hidden states [B, S, H]."""
    if input_ids is None or pad_token_id is None:
        if input_ids is not None and input_ids.shape[0] > 1:
            raise ValueError("where a row of a batch ends is unknown: set config.pad_token_id")
        return hidden[:, -1]
    last = (torch.arange(hidden.shape[1], device=hidden.device) * (input_ids != pad_token_id)).argmax(-1)  # [B]
    return hidden[torch.arange(last.shape[0], device=hidden.device), last]
