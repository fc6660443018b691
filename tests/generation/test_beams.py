"""Beam search in all its modes: the oracle's texts, their scores, and where each token came from."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from generation.conftest import PAD, Pair
from oracle.inputs import token_ids
from oracle.zoo import cases

BATCH = torch.cat((token_ids(2, 9), torch.cat((torch.full((1, 5), PAD), token_ids(1, 4)), 1)))
MANY = [39, 30, 124, 117, 13, 60, 61, 84, 20, 100]


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("ends", [2, 39, [39, 13], MANY], ids=["none met", "one", "two", "ten"])
def test_modes(llama: Pair, early: Any, ends: Any) -> None:
    lengths = set()
    for penalty, beams in itertools.product((0.0, 1.0, 2.0, -1.0), (2, 5)):
        for new in (1, 12):
            found = llama.assert_same(
                BATCH, num_beams=beams, num_return_sequences=beams, max_new_tokens=new, early_stopping=early,
                length_penalty=penalty, eos_token_id=ends,
            )  # fmt: skip
            lengths.add(found.shape[1])
    assert ends != MANY or len(lengths) > 2, "no text ended before the others"


OPTIONS: tuple[dict[str, Any], ...] = (
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 4, "eos_token_id": MANY},
    {"exponential_decay_length_penalty": (2, 1.2), "eos_token_id": [39, 13]},
    {"sequence_bias": [[[70, 37], 5.0]], "bad_words_ids": [[39]], "renormalize_logits": True},
    {"prefix_allowed_tokens_fn": lambda row, ids: range(20 + 20 * row, 60 + 20 * row)},
    {"forced_eos_token_id": 5},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_processors(llama: Pair, options: dict[str, Any]) -> None:
    found = llama.assert_same(BATCH, num_beams=3, num_return_sequences=2, max_new_tokens=10, **options)
    assert not torch.equal(found, llama.ours(BATCH, num_beams=3, num_return_sequences=2, max_new_tokens=10))


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_k": 0, "top_p": 0.9}, {"temperature": 0.5}], ids=str)
def test_sampled_beams(llama: Pair, settings: dict[str, Any]) -> None:
    for seed, ends in ((0, 2), (1, [39, 13]), (2, MANY)):
        llama.assert_same(
            BATCH,
            seed,
            num_beams=3,
            num_return_sequences=3,
            do_sample=True,
            max_new_tokens=8,
            eos_token_id=ends,
            **settings,
        )


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_every_decoder(pair: Any, case: Any) -> None:
    """Caches of every kind follow the beams; the cache may be there before."""
    both = pair(case)
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 16, "eos_token_id": [39, 13]}
    found = both.assert_same(BATCH, **options)
    assert torch.equal(both.ours(BATCH, cache_implementation="static", **options), found)
    if case.entry != "llama_dynamic":  # whose angles depend on how a text was read
        assert torch.equal(both.ours(BATCH, use_cache=False, **options), found)
        with torch.no_grad():
            past = both.model(token_ids(2, 9)[:, :6]).past_key_values
        assert torch.equal(
            both.ours(token_ids(2, 9), past_key_values=past, **options), both.ours(token_ids(2, 9), **options)
        )


def test_a_prompt_is_read_once(llama: Pair) -> None:
    """Not once for each beam: the first pass has one row a prompt."""
    rows = []
    hook = llama.model.register_forward_pre_hook(
        lambda *call: rows.append(call[2]["input_ids"].shape), with_kwargs=True
    )
    try:
        llama.ours(BATCH, num_beams=4, max_new_tokens=3)
    finally:
        hook.remove()
    assert rows == [(3, 9), (12, 1), (12, 1)]
