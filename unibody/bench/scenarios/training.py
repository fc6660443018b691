"""A step of training: forward, loss, backward, and the optimizer's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unibody.bench.measures import Meter
from unibody.bench.scenarios.inference import random_tokens


def run(
    backend: Any, config: dict[str, Any], checkpoint: Path | None, meter: Meter, facts: dict[str, Any]
) -> dict[str, Any]:
    """The report of `train_step`, on one batch again and again; the first and the last loss are facts."""
    backend.load(checkpoint, config["model"])
    ids = random_tokens(checkpoint, config["scenario"], getattr(backend, "device", "cpu"))
    losses: list[float] = []
    phase = meter.measure(lambda: losses.append(backend.train_step(ids)), ids.numel(), "tokens/s")
    facts["losses"] = [losses[0], losses[-1]]
    return {"train_step": phase}
