"""Loading, one pass over a prompt, and generating token by token."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unibody.bench.measures import Meter, complete, report_times
from unibody.bench.memory import synchronise

PHASES = ("load_model", "forward", "prefill", "first_token", "decode", "per_token")
Phase = dict[str, Any]


def run(
    backend: Any, config: dict[str, Any], checkpoint: Path | None, meter: Meter, facts: dict[str, Any]
) -> dict[str, Phase]:
    """The reports of the phases that `scenario.phases` names.

    load_model: from files that the system has in its cache. forward: one pass, without a cache. prefill: one pass that fills a cache
    and gives the next token. first_token: from the call of generate until the first token is there. decode: all tokens after the
    first. per_token: each of them.
    """
    scenario, model = config["scenario"], config["model"]
    phases = check_phases(scenario["phases"])
    report: dict[str, Phase] = {}

    def load() -> None:
        backend.load(checkpoint, model)

    if "load_model" in phases:
        report["load_model"] = meter.measure(load, prepare=gc.collect)
    else:
        load()
    ids = random_tokens(checkpoint, scenario, getattr(backend, "device", "cpu"))
    if "forward" in phases:
        report["forward"] = meter.measure(lambda: backend.forward(ids), len(ids), "samples/s")
    if "prefill" in phases:
        report["prefill"] = meter.measure(lambda: backend.prefill(ids), ids.numel(), "tokens/s")
    if wanted := [name for name in ("first_token", "decode", "per_token") if name in phases]:
        report |= generate(backend, ids, scenario["new_tokens"], meter, wanted, facts)
    return {name: report[name] for name in PHASES if name in report}


def check_phases(phases: Any) -> list[str]:
    if not isinstance(phases, list) or not phases or not set(phases) <= set(PHASES):
        raise ValueError(f"scenario.phases is {phases}: name some of {', '.join(PHASES)}")
    return phases


def random_tokens(checkpoint: Path | None, scenario: dict[str, Any], device: Any) -> Any:
    """Prompts [B, S] of the checkpoint's vocabulary, the same in every run."""
    import torch

    assert checkpoint is not None
    size = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    shape = (scenario["batch_size"], scenario["sequence_length"])
    return torch.randint(min(5, size - 1), size, shape, generator=torch.Generator().manual_seed(0)).to(device)


def generate(
    backend: Any, ids: Any, count: int, meter: Meter, wanted: Sequence[str], facts: dict[str, Any]
) -> dict[str, Phase]:
    """The phases of generating, all from the same runs."""
    if count < 2:
        raise ValueError(f"scenario.new_tokens is {count}: decoding begins with the second token, so give 2 or more")
    found: list[list[list[int]]] = []

    def once() -> list[tuple[float, float]]:
        clock = Clock()
        found.append(backend.generate(ids, count, clock))
        return clock.times

    runs = meter.repeat(once)
    if any(tokens != found[0] for tokens in found):
        facts["tokens_vary"] = True
    facts["tokens"] = {"sha256": hashlib.sha256(json.dumps(found[0]).encode()).hexdigest(), "first": found[0][0][:16]}
    times = {
        "first_token": [difference(run[0], run[1]) for run in runs],
        "decode": [difference(run[1], run[-1]) for run in runs],
        "per_token": [difference(run[i], run[i + 1]) for run in runs for i in range(1, len(run) - 1)],
    }
    rows, report = len(ids), {}
    volume = {"first_token": rows, "decode": rows * (count - 1), "per_token": rows}
    for name in wanted:
        if name == "decode":  # generating once more gives what the whole of it holds and takes
            report[name] = meter.report(times[name], volume[name], "tokens/s", again(backend, ids, count))
        else:
            unit = "samples/s" if name == "first_token" else "tokens/s"
            report[name] = complete(report_times(times[name], volume[name], unit), volume[name])
    return report


def again(backend: Any, ids: Any, count: int) -> Callable[[], Any]:
    return lambda: backend.generate(ids, count, lambda: None)


class Clock:
    """Notes wall and CPU time when it is made and whenever it is called."""

    def __init__(self) -> None:
        synchronise()
        self.times: list[tuple[float, float]] = []
        self()

    def __call__(self) -> None:
        synchronise()
        self.times.append((time.perf_counter(), time.process_time()))


def difference(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return end[0] - start[0], end[1] - start[1]
