"""Checkpoints for the tests of generated models, written once per test process."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from oracle.reference import Checkpoint, save
from oracle.zoo import Case


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """`checkpoint(case, scale="unit")`: the oracle's checkpoint, read-only for the test."""

    @functools.cache
    def written(case: Case, scale: str = "unit") -> Checkpoint:
        return save(case, scale, tmp_path_factory.mktemp("checkpoint") / f"{case}-{scale}")

    return written
