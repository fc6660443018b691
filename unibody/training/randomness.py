"""The states of Python's, numpy's and torch's random numbers: set by a seed, stored, restored, or lent for a while."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seeds Python, numpy and torch on every device; `deterministic` also forbids torch what is not repeatable."""
    random.seed(seed)
    torch.manual_seed(seed)
    if numpy := find_numpy():
        numpy.random.seed(seed % 2**32)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        torch.use_deterministic_algorithms(True)


def find_numpy() -> Any:
    """The module, or None where it is not installed."""
    try:
        import numpy as np
    except ImportError:
        return None
    return np


def get_random_states(devices: bool = True) -> dict[str, Any]:
    """All states, as tensors, numbers and lists that torch.load reads with weights_only; without `devices`, those of the CPU."""
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(internal), gauss], "cpu": torch.get_rng_state()}
    if numpy := find_numpy():
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, torch.from_numpy(keys.astype("int64")), *rest]
    if devices and torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Goes on from where `get_random_states` looked."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["cpu"])
    if "numpy" in states and (numpy := find_numpy()):
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """The CPU's random numbers follow from these numbers alone; afterwards they go on as if none had been drawn.

    Devices are left alone: workers that load data must not touch them.
    """
    states = get_random_states(devices=False)
    seed = random.Random(repr(numbers)).getrandbits(63)
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if numpy := find_numpy():
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        set_random_states(states)
