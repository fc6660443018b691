"""Sampling: with one seed the oracle's draws; each filter the oracle's, whatever the scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from generation.conftest import PAD, Pair
from oracle.inputs import token_ids

import unibody

BATCH = torch.cat((token_ids(2, 9), torch.cat((torch.full((1, 5), PAD), token_ids(1, 4)), 1)))
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_k": 0, "top_p": 0.7},
    {"top_k": 0, "min_p": 0.2},
    {"top_k": 0, "typical_p": 0.6},
    {"top_k": 0, "epsilon_cutoff": 0.02},
    {"top_k": 0, "eta_cutoff": 0.05},
    {
        "temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "epsilon_cutoff": 3e-3,
        "eta_cutoff": 0.01, "repetition_penalty": 1.2, "renormalize_logits": True,
    },
    {"num_return_sequences": 3, "eos_token_id": [39, 70, 13]},
)  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_draws(llama: Pair, settings: dict[str, Any]) -> None:
    for seed in range(3):
        llama.assert_same(BATCH, seed, do_sample=True, max_new_tokens=12, **settings)


def test_seed(llama: Pair) -> None:
    """`seed` is the oracle's global seed, and leaves the global state alone."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = llama.model.generate(BATCH, do_sample=True, max_new_tokens=12, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, llama.theirs(BATCH, 3, do_sample=True, max_new_tokens=12))
    assert not torch.equal(found, llama.model.generate(BATCH, do_sample=True, max_new_tokens=12, seed=4))


FILTERS: dict[str, tuple[Any, ...]] = {
    "TemperatureLogitsWarper": (0.3, 1.7),
    "TopKLogitsWarper": (1, 3, 200),
    "TopPLogitsWarper": (0.05, 0.5, 0.99),
    "MinPLogitsWarper": (0.01, 0.3, 1.0),
    "TypicalLogitsWarper": (0.1, 0.5, 0.95),
    "EpsilonLogitsWarper": (0.001, 0.05, 0.9),
    "EtaLogitsWarper": (0.001, 0.05, 0.9),
    "LogitNormalization": (),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_filters(name: str, scale: float) -> None:
    """Equal on random scores, flat and steep, some of them forbidden, with every least number of tokens."""
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(16, 40, generator=random) * scale
    scores[8:, :9] = -torch.inf
    ids = torch.zeros(16, 1, dtype=torch.long)
    ours, theirs = getattr(unibody, name), getattr(transformers.generation, name)
    dropped = 0
    for value in FILTERS[name]:
        for least in (
            ({}, {"min_tokens_to_keep": 2}, {"min_tokens_to_keep": 5})
            if name[0] in "TME" and name[:4] != "Temp"
            else ({},)
        ):
            before = scores.clone()
            found = ours(value, **least)(ids, scores)
            assert torch.equal(scores, before), "the scores that it is given are left alone"
            assert torch.equal(found, theirs(value, **least)(ids, scores.clone()))
            dropped += int((found == -torch.inf).sum() - (scores == -torch.inf).sum())
    if not FILTERS[name]:
        torch.testing.assert_close(ours()(ids, scores), theirs()(ids, scores))
    assert dropped > 0 or name in ("TemperatureLogitsWarper", "LogitNormalization")
