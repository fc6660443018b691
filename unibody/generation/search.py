"""One token after the other: the likeliest (greedy search), or drawn (sampling)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unibody.generation.request import Request


@torch.no_grad()
def search(request: Request) -> Iterator[Tensor]:
    """The next tokens [B], step by step, until each text is finished; those that are get padding."""
    ids = request.input_ids
    finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    while not finished.all():
        logits = request.reader.logits(ids)[:, -1]
        scores = request.processors(ids, logits.clone())  # a user's may work in place
        request.record(scores, logits)
        tokens = request.choose(scores).masked_fill(finished, request.pad)
        ids = torch.cat((ids, tokens[:, None]), 1)
        finished = finished | request.ends(ids)
        yield tokens
