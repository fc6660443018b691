"""Greedy search and every processor: the oracle's tokens and scores, in batches with padding, on every decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from generation.conftest import PAD, Pair
from oracle.inputs import token_ids
from oracle.zoo import cases
from torch import Tensor

import unibody

PROMPT = token_ids(2, 9)
PADDED = torch.cat((torch.full((1, 5), PAD), token_ids(1, 4)), 1)
BATCH = torch.cat((PROMPT, PADDED))
OPTIONS: dict[str, dict[str, Any]] = {
    "sequence_bias": {"sequence_bias": [[[39], -9.0], [[70, 37], 5.0], [[3], 4.0]]},
    "repetition_penalty": {"repetition_penalty": 1.6},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "no token twice": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[39], [70, 111], [2]]},
    "min_length": {"min_length": 20, "eos_token_id": [70, 13]},
    "min_new_tokens": {"min_new_tokens": 9, "eos_token_id": [70, 13]},
    "prefix_allowed_tokens_fn": {"prefix_allowed_tokens_fn": lambda row, ids: range(20 + row, 60)},
    "forced_eos_token_id": {"forced_eos_token_id": 5},
    "one of several forced_eos_token_id": {"forced_eos_token_id": [5, 6]},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (3, 1.9), "eos_token_id": [55, 60]},
    "suppress_tokens": {"suppress_tokens": [70, 13, 39]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [70, 13, 111]},
    "together": {
        "sequence_bias": [[[39], -2.0]], "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words_ids": [[70, 111]],
        "min_new_tokens": 5, "eos_token_id": [13, 55], "suppress_tokens": [8, 30], "renormalize_logits": True,
        "exponential_decay_length_penalty": (2, 1.3), "remove_invalid_values": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_processors(llama: Pair, options: dict[str, Any]) -> None:
    """The oracle's tokens and scores; and others than without the option, or the test would prove nothing."""
    found = llama.assert_same(BATCH, max_new_tokens=30, **options)
    ends = {name: options[name] for name in ("eos_token_id",) if name in options}
    plain = llama.ours(BATCH, max_new_tokens=30, **ends)
    assert found.shape != plain.shape or not torch.equal(found, plain)


@pytest.mark.parametrize(
    "options", [{"renormalize_logits": True}, {"remove_invalid_values": True}, {"forced_bos_token_id": 7}]
)
def test_processors_that_change_no_token_of_a_longer_prompt(llama: Pair, options: dict[str, Any]) -> None:
    llama.assert_same(BATCH, max_new_tokens=6, **options)


def test_forced_bos_follows_a_prompt_of_one_token(llama: Pair) -> None:
    found = llama.assert_same(token_ids(2, 1), max_new_tokens=4, forced_bos_token_id=7)
    assert found[:, 1].tolist() == [7, 7]


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_every_decoder(pair: Any, case: Any) -> None:
    """32 tokens of a padded batch, some rows of which end early."""
    both = pair(case)
    free = both.ours(BATCH, max_new_tokens=32)
    ends = [int(free[0, 14]), int(free[2, 20])]
    options = {"max_new_tokens": 32, "eos_token_id": ends, "repetition_penalty": 1.1}
    found = both.assert_same(BATCH, **options)
    assert found.shape[1] > 10
    assert torch.equal(both.ours(BATCH, cache_implementation="static", max_cache_len=64, **options), found)
    if case.entry != "llama_dynamic":  # whose angles depend on how a text was read
        assert torch.equal(both.ours(BATCH, use_cache=False, **options), found)


def test_mask(llama: Pair) -> None:
    """A mask says what is padding; without one, padding tokens are, unless they end texts."""
    mask = (BATCH != PAD).long()
    stated = llama.assert_same(BATCH, max_new_tokens=8, attention_mask=mask)
    assert torch.equal(llama.ours(BATCH, max_new_tokens=8), stated)
    ending = llama.assert_same(BATCH, max_new_tokens=8, eos_token_id=PAD, pad_token_id=PAD)
    assert not torch.equal(ending[2], stated[2])


def test_lengths(llama: Pair) -> None:
    for options in (
        {"max_length": 12},
        {"max_new_tokens": 3},
        {"max_length": 30, "max_new_tokens": 4},
        {"min_length": 12, "max_length": 14},
    ):
        llama.assert_same(PROMPT, **options)
    assert llama.ours(PROMPT, eos_token_id=None).shape[1] == 9 + 20
    config = llama.model.generation_config
    config.max_new_tokens = 5
    try:
        assert llama.ours(PROMPT).shape[1] == 9 + 5
        assert llama.ours(PROMPT, max_length=11).shape[1] == 11, "the nearer one counts"
    finally:
        config.max_new_tokens = None


def test_no_prompt_begins_with_the_first_token(llama: Pair) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        expected = llama.reference.generate(max_new_tokens=5)
    assert torch.equal(llama.model.generate(max_new_tokens=5), expected)


def test_configuration_of_a_call(llama: Pair) -> None:
    """What a configuration leaves open is the model's; the options of the call come before both."""
    for values in ({"max_new_tokens": 6}, {"max_new_tokens": 6, "repetition_penalty": 1.5, "eos_token_id": 70}):
        theirs = llama.theirs(
            PROMPT, generation_config=transformers.GenerationConfig(**values), no_repeat_ngram_size=2
        )
        assert torch.equal(
            llama.ours(PROMPT, generation_config=unibody.GenerationConfig(**values), no_repeat_ngram_size=2), theirs
        )
    given = unibody.GenerationConfig(max_new_tokens=6)
    llama.ours(PROMPT, generation_config=given, num_beams=2)
    assert given == unibody.GenerationConfig(max_new_tokens=6)


def test_order(llama: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every option at once, the oracle's processors in the oracle's order."""
    orders: list[list[str]] = []
    for library in (transformers.LogitsProcessorList, unibody.LogitsProcessorList):

        def call(self: Any, ids: Tensor, scores: Tensor) -> Tensor:
            orders.append([type(processor).__name__ for processor in self])
            return scores

        monkeypatch.setattr(library, "__call__", call)
    options = {
        "sequence_bias": [[[3], 1.0]], "repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "bad_words_ids": [[5]], "min_length": 12,
        "min_new_tokens": 3, "prefix_allowed_tokens_fn": lambda row, ids: range(3, 120), "forced_bos_token_id": 4,
        "forced_eos_token_id": 2, "remove_invalid_values": True, "exponential_decay_length_penalty": (3, 1.1),
        "suppress_tokens": [8], "begin_suppress_tokens": [9], "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9,
        "min_p": 0.01, "typical_p": 0.95, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-4, "renormalize_logits": True,
        "max_new_tokens": 8,
    }  # fmt: skip

    class Mine(unibody.LogitsProcessor):
        pass

    llama.theirs(PROMPT, logits_processor=[Mine()], **options)
    llama.ours(PROMPT, logits_processor=[Mine()], presence_penalty=1.0, frequency_penalty=1.0, **options)
    theirs, ours = orders[0], orders[-1]
    place = ours.index("RepetitionPenaltyLogitsProcessor") + 1
    assert ours[place : place + 2] == ["PresencePenaltyLogitsProcessor", "FrequencyPenaltyLogitsProcessor"]
    assert ours[:place] + ours[place + 2 :] == theirs
    assert len(theirs) == len(options) - 2 + 1


def test_users_processors(llama: Pair) -> None:
    """The user's own come after the penalties and before the filters, and take the place of ours of their class."""
    seen: list[Tensor] = []

    def only_even(ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores)
        return scores.masked_fill(torch.arange(scores.shape[1]) % 2 == 1, -torch.inf)

    found = llama.assert_same(PROMPT, max_new_tokens=6, logits_processor=[only_even], suppress_tokens=[70])
    assert (found[:, 9:] % 2 == 0).all()
    assert all(scores[0, 70] == -torch.inf for scores in seen)
    mine = unibody.MinNewTokensLengthLogitsProcessor(9, 2, [70, 13, 39])
    ends = {"max_new_tokens": 16, "eos_token_id": [70, 13, 39]}
    replaced = llama.ours(PROMPT, logits_processor=[mine], min_new_tokens=10, **ends)
    assert torch.equal(replaced, llama.ours(PROMPT, min_new_tokens=2, **ends))
    assert not torch.equal(replaced, llama.ours(PROMPT, min_new_tokens=10, **ends))


@pytest.mark.parametrize("option", ["presence_penalty", "frequency_penalty"])
def test_presence_and_frequency(llama: Pair, option: str) -> None:
    """What OpenAI's API says of the two: a token's score falls once it was generated, or each time; the prompt does not count."""
    options = {"max_new_tokens": 16, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    found = llama.ours(PROMPT, **{option: 0.75}, **options)
    assert not torch.equal(found.sequences, llama.ours(PROMPT, max_new_tokens=16))
    for step, (scores, logits) in enumerate(zip(found.scores, found.logits, strict=True)):
        for row in range(2):
            new = found.sequences[row, 9 : 9 + step].tolist()
            for token in range(128):
                times = new.count(token) if option == "frequency_penalty" else token in new
                assert scores[row, token] == pytest.approx(float(logits[row, token]) - 0.75 * times, abs=1e-5)
