"""Forgetting: a cache that was cut goes on as if it had never read further."""

from __future__ import annotations

import random

import pytest
import torch

from unibody.core.cache import KVCache, StaticCache
from unibody.generation.reader import crop, select_rows

TEXT = torch.arange(400, dtype=torch.float32).reshape(1, 1, 400, 1)


@pytest.mark.parametrize("windows", [[None], [1], [6], [6, None, 3]], ids=str)
@pytest.mark.parametrize("static", [False, True])
def test_cut_at_any_place(windows: list[int | None], static: bool) -> None:
    """Reading and forgetting by turns, each layer gets the keys of the positions that its mask is made for."""
    chance, whole = random.Random(0), 0
    for _ in range(60):
        cache = StaticCache(windows, 400) if static else KVCache(windows)
        for _ in range(12):
            for size in chance.choice([(chance.randint(1, 9),), (1,) * chance.randint(1, 9)]):
                start, end = cache.length, cache.length + size
                ranges = [cache.mask_range(size, window) for window in windows]
                for layer, (first, count) in enumerate(ranges):
                    new = TEXT[:, :, start:end].clone()
                    keys, values = cache.update(new, -new, layer)
                    seen = slice(0, end) if static else slice(None)
                    assert torch.equal(keys[:, :, seen], TEXT[:, :, first : end if static else first + count])
                    assert torch.equal(values, -keys)
            kept = chance.randint(0, cache.length)
            crop(cache, kept)
            assert cache.length in (kept, 0)
            whole += cache.length == kept > 0
    assert whole > 200, "it forgot everything too often"
    assert not (static or windows == [None]) or whole > 600


def test_rows() -> None:
    cache = KVCache([None])
    keys = torch.arange(3.0).reshape(3, 1, 1, 1)
    cache.update(keys, keys, 0)
    select_rows(cache, torch.tensor([2, 2, 0, 1]))
    found, _ = cache.update(torch.zeros(4, 1, 1, 1), torch.zeros(4, 1, 1, 1), 0)
    assert found[:, 0, 0, 0].tolist() == [2, 2, 0, 1]
