"""Running samples through a model block by block, so that each block is quantized with the inputs that it will see."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.core.quantization.replacement import name_prefix


class BlockReachedError(Exception):
    """Ends a forward pass at the block whose inputs are wanted."""


def find_blocks(model: Any, name: str | None) -> nn.ModuleList:
    """The model's repeated blocks: the list of this name, or the longest."""
    lists = {path: part for path, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part)}
    if name is not None and name not in lists:
        name = name.removeprefix(name_prefix(model))
    if name is not None and name not in lists:
        known = ", ".join(lists) or "none"
        raise ValueError(f"block_name_to_quantize {name!r} is no list of blocks: there are {known}")
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks: it cannot be quantized block by block")
    return lists[name] if name is not None else max(lists.values(), key=len)


@torch.no_grad()
def block_inputs(model: Any, block: nn.Module, samples: list[Tensor]) -> list[Any]:
    """The arguments, and those with names, with which the model calls a block for each sample of token ids [B, S]."""
    calls: list[Any] = []
    for token in (int(token) for ids in samples for token in ids.aminmax()):
        if not 0 <= token < model.config.vocab_size:
            known = model.config.vocab_size - 1
            raise ValueError(f"dataset has the token {token}, and the model's are 0 to {known}: use its own tokenizer")

    def stop(_: nn.Module, arguments: Any, options: Any) -> None:
        calls.append((arguments, options))
        raise BlockReachedError

    hook = block.register_forward_pre_hook(stop, with_kwargs=True)
    options = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}  # encoders have none
    try:
        for ids in samples:
            with suppress(BlockReachedError):
                model(ids.to(model.device), **options)
    finally:
        hook.remove()
    return calls


@torch.no_grad()
def visit_blocks(
    model: Any, blocks: Any, samples: list[Tensor], visit: Callable[[Any, Any], Any], cache: bool = True
) -> None:
    """Calls `visit(block, run)` for each block in order; `run()` sends all samples through the block as it is then.

    What the visit returns, or else the block after it, is what the next one gets; no more than one block's inputs are held.
    Without `cache`, the next one's inputs are computed again from the model's.
    """
    calls = block_inputs(model, blocks[0], samples)
    for index, block in enumerate(progress(blocks)):
        if index and not cache:
            calls = block_inputs(model, block, samples)
        run = partial(run_block, block, calls)
        found = visit(block, run)
        if cache:
            calls = with_inputs(calls, run() if found is None else found)


@torch.no_grad()
def run_block(block: nn.Module, calls: list[Any]) -> list[Tensor]:
    """The hidden states that the block returns."""
    outputs = (block(*arguments, **options) for arguments, options in calls)
    return [y[0] if isinstance(y, tuple) else y for y in outputs]


def with_inputs(calls: list[Any], inputs: list[Tensor]) -> list[Any]:
    """The calls with other hidden states."""
    return [((x, *arguments[1:]), options) for x, (arguments, options) in zip(inputs, calls, strict=True)]


def watch_inputs(linears: dict[str, nn.Linear], see: Callable[[str, Tensor], None], run: Callable[[], Any]) -> None:
    """Calls `see` with the name and the inputs of each layer that runs, while `run` does."""
    hooks = [linear.register_forward_pre_hook(lambda _, x, n=n: see(n, x[0])) for n, linear in linears.items()]
    run()
    for hook in hooks:
        hook.remove()


def group_by_input(linears: dict[str, nn.Linear], run: Callable[[], Any]) -> list[list[str]]:
    """The names of a block's layers in the order in which they run, those with the same input together."""
    groups: dict[int, list[str]] = {}
    inputs: dict[str, Tensor] = {}  # the first of each, held so that no two have the same identity

    def note(name: str, x: Tensor) -> None:
        inputs.setdefault(name, x)

    watch_inputs(linears, note, run)
    for name, x in inputs.items():
        groups.setdefault(id(x), []).append(name)
    return list(groups.values())


def progress(blocks: Any) -> Any:
    """The blocks one by one, with a bar where tqdm is installed and errors go to a terminal."""
    if find_spec("tqdm") is None or not sys.stderr.isatty():
        return blocks
    return import_module("tqdm").tqdm(blocks, desc="quantizing", unit="block")


# The field's two names of c4 differ in what they evaluate on, not in what they calibrate with.
C4 = {"path": "allenai/c4", "data_files": {"train": "en/c4-train.00000-of-01024.json.gz"}}
WIKITEXT2 = {"path": "Salesforce/wikitext", "name": "wikitext-2-raw-v1"}
NAMED_DATASETS: dict[str, dict[str, Any]] = {"wikitext2": WIKITEXT2, "c4": C4, "c4-new": C4}


def require_dataset(config: Any) -> None:
    """Refuses a name of a data set that is not one of those known."""
    if isinstance(name := config.dataset, str) and name not in NAMED_DATASETS:
        kind = type(config).__name__
        raise ValueError(
            f"{kind}: dataset is {name!r}, expected one of {', '.join(NAMED_DATASETS)}, or a list of texts"
        )


def fetch_texts(name: str, count: int = 128) -> list[str]:
    """The first texts of a named data set on the Hub that are longer than a heading."""
    try:
        rows = import_module("datasets").load_dataset(**NAMED_DATASETS[name], split="train", streaming=True)
        return list(islice((row["text"] for row in rows if len(row["text"]) > 200), count))
    except ImportError:
        raise ValueError(f"dataset {name!r} is read by `datasets`: install it, or pass a list of texts") from None
    except OSError as error:
        raise ValueError(f"dataset {name!r} cannot be fetched ({error}): pass a list of texts instead") from error


def find_tokenizer(tokenizer: Any) -> Any:
    """What encodes texts: the object, or that of a folder with a tokenizer.json, or of a Hub id."""
    if not isinstance(tokenizer, (str, os.PathLike)):
        return tokenizer
    from tokenizers import Tokenizer

    name, file = str(tokenizer), Path(tokenizer, "tokenizer.json")
    try:
        return Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # that library raises nothing more specific
        found = f"tokenizer {name!r} is no folder with a tokenizer.json, and not to be had from the Hub: {error}"
        raise ValueError(found) from error


def tokenize_samples(dataset: Any, tokenizer: Any, length: int | None) -> list[Tensor]:
    """Token ids [1, S] of texts, or of what is ids already (lists or tensors), cut to `length`; empty ones are left out."""
    tokenizer, samples = find_tokenizer(tokenizer), []
    for entry in fetch_texts(dataset) if isinstance(dataset, str) else () if dataset is None else dataset:
        if isinstance(entry, str):
            if tokenizer is None:
                raise ValueError("dataset holds texts, and tokenizer is None: pass a tokenizer, or lists of token ids")
            encoded = tokenizer.encode(entry)
            entry = getattr(encoded, "ids", encoded)
        ids = torch.as_tensor(entry).reshape(1, -1)[:, :length]
        if ids.numel() and ids.is_floating_point():
            raise TypeError(f"dataset holds {entry!r}, expected a text or a list of token ids")
        samples += [ids] if ids.numel() else []
    if not samples:
        raise ValueError("dataset is empty: quantization needs texts, or lists of token ids, to calibrate with")
    return samples


def batch_samples(samples: list[Tensor], size: int, pad_token_id: int | None) -> list[Tensor]:
    """Samples [1, S] in batches [B, S'], the shorter ones filled up at their end."""
    batches = []
    for start in range(0, len(samples), size):
        some = [ids[0] for ids in samples[start : start + size]]
        if pad_token_id is None and len({len(ids) for ids in some}) > 1:
            raise ValueError(f"batch_size is {size} and samples differ in length: set pad_token_id, or batch_size=1")
        batches.append(nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=pad_token_id or 0))
    return batches
