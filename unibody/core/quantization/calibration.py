"""Running samples through a model block by block, so that each block is quantized with the inputs that it will see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class BlockReachedError(Exception):
    """Ends a forward pass at the block whose inputs are wanted."""


def find_blocks(model: Any, name: str | None) -> nn.ModuleList:
    """The model's repeated blocks: the list of this name, or the longest."""
    lists = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    }
    if name is not None and name not in lists:
        raise ValueError(
            f"block_name_to_quantize {name!r} is no list of blocks: there are {', '.join(lists) or 'none'}"
        )
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks: it cannot be quantized block by block")
    return lists[name] if name is not None else max(lists.values(), key=len)


@torch.no_grad()
def block_inputs(
    model: Any, block: nn.Module, samples: list[Tensor]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments with which the model calls a block, for each sample of token ids [B, S]."""
    seen: list[Any] = []

    def stop(_: nn.Module, arguments: Any, options: Any) -> None:
        seen.append((arguments, options))
        raise BlockReachedError

    hook = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        for ids in samples:
            try:
                model(ids.to(model.device), use_cache=False)
            except BlockReachedError:
                yield seen.pop()
    finally:
        hook.remove()


@torch.no_grad()
def visit_blocks(
    model: Any, blocks: nn.ModuleList, samples: list[Tensor], visit: Callable[[nn.Module, Callable[[], Any]], Any]
) -> None:
    """Calls `visit(block, run)` for each block in order; `run()` sends all samples through the block as it is then.

    What the visit returns, or else the block after it, is what the next one gets; no more than one block's inputs are held.
    """
    calls = list(block_inputs(model, blocks[0], samples))
    for block in blocks:
        run = partial(run_block, block, calls)
        found = visit(block, run)
        outputs = [y[0] if isinstance(y, tuple) else y for y in (run() if found is None else found)]
        calls = [((y, *arguments[1:]), options) for y, (arguments, options) in zip(outputs, calls, strict=True)]


def run_block(block: nn.Module, calls: list[Any]) -> list[Any]:
    return [block(*arguments, **options) for arguments, options in calls]


def tokenize_samples(dataset: Any, tokenizer: Any, length: int | None) -> list[Tensor]:
    """Token ids [1, S] of texts, or of what is ids already (lists or tensors), cut to `length`."""
    if dataset is None or len(dataset) == 0:
        raise ValueError("dataset is empty: quantization needs texts, or lists of token ids, to calibrate with")
    if isinstance(dataset, str):
        raise ValueError(f"dataset {dataset!r} would have to be fetched: pass a list of its texts instead")
    samples = []
    for entry in dataset:
        if isinstance(entry, str):
            if tokenizer is None:
                raise ValueError("dataset holds texts, and tokenizer is None: pass a tokenizer, or lists of token ids")
            encoded = tokenizer.encode(entry)
            entry = getattr(encoded, "ids", encoded)
        samples.append(torch.as_tensor(entry).reshape(1, -1)[:, :length])
    return samples
