"""NEFTune (2310.05914): noise on the embeddings while training, against learning a small set of answers by heart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unibody.training.losses import innermost


@contextmanager
def noisy_embeddings(model: Any, alpha: float | None) -> Iterator[None]:
    """While it lasts, the embeddings [B, S, H] of a model that trains have even noise of at most alpha / sqrt(S H); None: no noise.

    ValueError: the model does not say which its embeddings are.
    """
    if alpha is None:
        yield
        return
    inner = innermost(model)
    if not hasattr(inner, "get_input_embeddings"):
        raise ValueError(f"neftune_noise_alpha needs get_input_embeddings, which {type(inner).__name__} has not")

    def add_noise(layer: Any, inputs: Any, embeddings: Tensor) -> Tensor:
        if not layer.training:
            return embeddings
        bound = alpha / (embeddings.shape[1] * embeddings.shape[2]) ** 0.5
        return embeddings + torch.zeros_like(embeddings).uniform_(-bound, bound)

    hook = inner.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        hook.remove()
