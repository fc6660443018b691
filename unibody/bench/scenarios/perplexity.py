"""What a quantized model still knows: its perplexity on a text that every Python has, and its bits per weight."""

from __future__ import annotations

import math
import pydoc_data.topics
from pathlib import Path
from typing import Any

from unibody.bench.measures import Meter


def run(
    backend: Any, config: dict[str, Any], checkpoint: Path | None, meter: Meter, facts: dict[str, Any]
) -> dict[str, Any]:
    """The report of `perplexity`: the time of a pass over all windows, and under `quality` what it found."""
    assert checkpoint is not None
    backend.load(checkpoint, config["model"])
    windows = text_windows(checkpoint, config["scenario"]["windows"], config["scenario"]["window_length"])
    losses: list[float] = []

    def evaluate() -> None:
        losses[:] = backend.losses(windows)

    phase = meter.measure(evaluate, windows.numel(), "tokens/s")
    bits = backend.bits_per_weight() if hasattr(backend, "bits_per_weight") else None
    phase["quality"] = {"perplexity": perplexity(losses), "bits_per_weight": bits}
    return {"perplexity": phase}


def perplexity(losses: list[float]) -> float:
    return math.exp(sum(losses) / len(losses))


def text_windows(checkpoint: Path, count: int, length: int, topics: slice = slice(20)) -> Any:
    """Token ids [count, length] of pages of Python's language reference, by the checkpoint's tokenizer."""
    import torch
    from tokenizers import Tokenizer

    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"{checkpoint} has no tokenizer.json, and perplexity is that of a text: name another model")
    pages = [" ".join(pydoc_data.topics.topics[name].split()) for name in sorted(pydoc_data.topics.topics)]
    ids = Tokenizer.from_file(str(file)).encode(" ".join(pages[topics])).ids
    if len(ids) < count * length:
        raise ValueError(f"the text has {len(ids)} tokens, and {count} windows of {length} are wanted: ask for fewer")
    return torch.tensor(ids[: count * length]).view(count, length)
