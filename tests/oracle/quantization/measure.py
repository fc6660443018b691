"""How far a quantized model's blocks are from the full model's: the measure of methods that have no exact answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def block_errors(full: Any, quantized: Any, tokens: Tensor) -> Tensor:
    """Mean squared errors `[blocks, 2]` of the outputs of a Llama's blocks over all of `tokens`.

    Column 0: each block alone, on the full model's input to it. Column 1: the quantized blocks in a row.
    """
    theirs, ours = _block_outputs(full, tokens), _block_outputs(quantized, tokens)
    starts = [output for _, output in theirs[:-1]]
    alone = [ours[0][1], *_alone(quantized, theirs, starts)]
    expected = [output for _, output in theirs]
    chained = [output for _, output in ours]
    pairs = zip(expected, alone, chained, strict=True)
    return torch.tensor([[_error(a, b), _error(a, c)] for a, b, c in pairs], dtype=torch.float64)


def _error(expected: Tensor, found: Tensor) -> float:
    return (expected - found).double().square().mean().item()


def _block_outputs(model: Any, tokens: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
    """The keyword arguments and the output of each block."""
    kept: list[tuple[dict[str, Any], Tensor]] = []

    def keep(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        kept.append((kwargs, output[0] if isinstance(output, tuple) else output))

    handles = [block.register_forward_hook(keep, with_kwargs=True) for block in model.model.layers]
    model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return kept


def _alone(model: Any, recorded: list[tuple[dict[str, Any], Tensor]], starts: list[Tensor]) -> list[Tensor]:
    """The outputs of every block but the first, each on the input that the full model gave it."""
    outputs = []
    for block, (kwargs, _), start in zip(model.model.layers[1:], recorded[1:], starts, strict=True):
        output = block(start, **{key: value for key, value in kwargs.items() if key != "hidden_states"})
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return outputs
