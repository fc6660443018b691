"""Assisted decoding: the tokens of plain search in fewer passes; drawn tokens have the model's own distribution."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from generation.conftest import PAD, Pair
from oracle.inputs import token_ids
from oracle.zoo import cases
from torch import Tensor

from unibody.generation.assisted import speculate

PROMPT = token_ids(1, 9, seed=2)
EXACT = [
    case for case in cases("AutoModelForCausalLM") if case.entry != "llama_dynamic"
]  # its angles depend on the steps
NEW = 40


def similar(model: Any, noise: float) -> Any:
    """A model that mostly agrees."""
    other = copy.deepcopy(model)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * parameter.std() * noise)
    return other


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """How many tokens the model read in each pass."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda *call: passes.append(call[2]["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        yield passes
    finally:
        hook.remove()


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    {"eos_token_id": [100, 79], "min_new_tokens": 6},
    {"cache_implementation": "static"},
)


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_same_tokens(pair: Any, case: Any) -> None:
    """The oracle's greedy tokens, by a draft model and by looking them up in the text, with fewer passes."""
    both = pair(case)
    assistant = similar(both.model, 0.1)
    saved = [0, 0]
    for options in OPTIONS:
        plain = {"cache_implementation": None} if "cache_implementation" in options else {}
        expected = both.theirs(PROMPT, max_new_tokens=NEW, **options | plain)
        new = expected.shape[1] - 9
        for which, draft in enumerate(
            (
                {"assistant_model": assistant, "assistant_confidence_threshold": 0.0, "num_assistant_tokens": 5},
                {"prompt_lookup_num_tokens": 4},
            )
        ):
            with counted(both.model) as passes:
                found = both.ours(PROMPT, max_new_tokens=NEW, return_dict_in_generate=True, **options, **draft)
            assert torch.equal(found.sequences, expected)
            assert found.past_key_values.length == expected.shape[1] - 1, "the cache holds what the text holds"
            assert len(passes) <= new
            saved[which] += new - len(passes)
    assert saved[0] > 10
    assert saved[1] > 0


def test_scores(llama: Pair) -> None:
    """Scores and logits are those of plain search."""
    options = {"max_new_tokens": 16, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    plain = llama.ours(PROMPT, repetition_penalty=1.3, **options)
    found = llama.ours(PROMPT, repetition_penalty=1.3, assistant_model=llama.model, **options)
    for name in ("scores", "logits"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), rtol=1e-5, atol=1e-4)


def test_padded_prompt(llama: Pair) -> None:
    padded = torch.cat((torch.full((1, 4), PAD), PROMPT), 1)
    expected = llama.theirs(padded, max_new_tokens=16)
    assert torch.equal(llama.ours(padded, max_new_tokens=16, assistant_model=llama.model), expected)
    assert torch.equal(llama.ours(padded, max_new_tokens=16, prompt_lookup_num_tokens=3), expected)


def test_an_assistant_that_is_right_saves_most_passes(llama: Pair) -> None:
    options = {"assistant_model": llama.model, "assistant_confidence_threshold": 0.0, "max_new_tokens": NEW}
    for schedule, expected in (("constant", [13, *[5] * 7]), ("heuristic", [13, 7, 9, 11, 8])):
        found = passes_of(llama, num_assistant_tokens=4, num_assistant_tokens_schedule=schedule, **options)
        assert found == expected


def passes_of(llama: Pair, **options: Any) -> list[int]:
    """What the model reads to verify; the assistant is another object, so that its passes do not count."""
    options["assistant_model"] = copy.deepcopy(options["assistant_model"])
    with counted(llama.model) as passes:
        llama.ours(PROMPT, **options)
    return passes


def test_confidence(llama: Pair) -> None:
    """A draft ends after the first token that its model gives less than the threshold."""
    options = {"assistant_model": llama.model, "max_new_tokens": NEW, "num_assistant_tokens": 6}
    lengths = [len(passes_of(llama, assistant_confidence_threshold=least, **options)) for least in (0.0, 0.2, 1.0)]
    assert lengths[0] < lengths[1] < lengths[2] == NEW // 2


@pytest.mark.parametrize("seed", range(3))
def test_looking_up_does_not_change_the_draws(llama: Pair, seed: int) -> None:
    options = {"do_sample": True, "temperature": 0.4, "max_new_tokens": NEW}
    expected = llama.theirs(PROMPT, seed, **options)
    assert torch.equal(llama.ours(PROMPT, seed, prompt_lookup_num_tokens=3, **options), expected)


def test_speculative_sampling_draws_from_the_models_distribution(llama: Pair) -> None:
    """300 pairs of tokens: a chi-square statistic that fits the model's own probabilities, though the drafts have others."""
    assistant, draws, settings = similar(llama.model, 0.6), 300, {"top_k": 8, "temperature": 0.8, "top_p": 0.9}
    first = softmax_of(llama, PROMPT, settings)
    follow = {
        int(token): softmax_of(llama, torch.cat((PROMPT, token[None, None]), 1), settings)
        for token in first.nonzero()[:, 0]
    }
    expected = torch.zeros(128, 128, dtype=torch.double)
    for token, second in follow.items():
        expected[token] = first[token] * second
    differing = (softmax_of(llama, PROMPT, settings, assistant) - first).abs().sum()
    assert differing > 0.3, "the assistant agrees: the test would not see a wrong rule"
    counts = torch.zeros(128, 128, dtype=torch.double)
    torch.manual_seed(0)
    for _ in range(draws):
        found = llama.model.generate(
            PROMPT, do_sample=True, max_new_tokens=2, eos_token_id=None, assistant_model=assistant,
            assistant_confidence_threshold=0.0, num_assistant_tokens=2, **settings,
        )  # fmt: skip
        counts[found[0, 9], found[0, 10]] += 1
    assert counts[expected == 0].sum() == 0
    common = expected * draws >= 5
    observed = torch.cat((counts[common], counts[~common].sum()[None]))
    wanted = torch.cat((expected[common], expected[~common].sum()[None])) * draws
    statistic = ((observed - wanted).square() / wanted).sum().item()
    freedom = len(wanted) - 1
    assert freedom > 4
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


def test_rule_of_speculative_sampling() -> None:
    """Whatever the drafts are drawn from, what comes out has the model's probabilities: 20,000 draws of one token."""
    random = torch.Generator().manual_seed(0)
    request: Any = SimpleNamespace(generator=random)
    scores = torch.tensor([[1.0, 0.5, -1.0, 0.0, -torch.inf]])
    p, q = scores.softmax(-1)[0], torch.tensor([0.1, 0.6, 0.1, 0.0, 0.2])
    drafts = torch.multinomial(q, 20_000, replacement=True, generator=random)
    drawn = torch.cat([speculate(request, scores, draft[None], q) for draft in drafts])
    counts = torch.bincount(drawn, minlength=5)
    assert counts[4] == 0
    wanted = p[:4] * len(drafts)
    statistic = ((counts[:4] - wanted).square() / wanted).sum().item()
    assert statistic <= 3 + 5 * 6**0.5
    assert all(speculate(request, scores, draft[None], p) == draft for draft in torch.arange(4)), "nothing to mend"


def softmax_of(llama: Pair, ids: Tensor, settings: dict[str, Any], model: Any = None) -> Tensor:
    """The oracle's probabilities [V] of the next token after its own filters."""
    options = {"do_sample": True, "max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    if model is not None:
        return model.generate(ids, **options, **settings).scores[0].softmax(-1)[0].double()
    return llama.theirs(ids, **options, **settings).scores[0].softmax(-1)[0].double()
