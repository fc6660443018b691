"""Sampling draws from the oracle's distribution: temperature, then top-k, then top-p; a seed makes it reproducible."""

from __future__ import annotations

import pytest
import torch
from oracle.inputs import token_ids
from oracle.reference import assert_close
from oracle.zoo import cases, first_case
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

DRAWS = 20_000
SETTINGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 2.5},
    {"top_k": 5},
    {"top_k": 1},
    {"top_k": 1000},
    {"top_p": 0.7},
    {"top_p": 0.01},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.8},
]


def described(settings: dict[str, float]) -> str:
    return "-".join(f"{name}={value}" for name, value in settings.items()) or "plain"


def expected_probabilities(ids: Tensor, logits: Tensor, settings: dict[str, float]) -> Tensor:
    """Probabilities `[vocabulary]` after the oracle's processors."""
    if "temperature" in settings:
        logits = TemperatureLogitsWarper(settings["temperature"])(ids, logits)
    if "top_k" in settings:
        logits = TopKLogitsWarper(settings["top_k"])(ids, logits)
    if "top_p" in settings:
        logits = TopPLogitsWarper(settings["top_p"])(ids, logits)
    return logits.softmax(-1)[0].double()


@pytest.mark.parametrize("settings", SETTINGS, ids=described)
def test_draws_follow_the_oracles_distribution(checkpoint, settings):
    """20,000 draws of one token: only tokens that the oracle keeps, and a chi-square statistic that fits."""
    written = checkpoint(first_case())
    ids = token_ids(1, 5)
    with torch.no_grad():
        expected = expected_probabilities(ids, written.reference()(ids).logits[:, -1], settings)
    drawn = written.load().generate(
        ids.expand(DRAWS, -1), do_sample=True, max_new_tokens=1, seed=11, eos_token_id=[], **settings
    )
    counts = torch.bincount(drawn[:, -1], minlength=len(expected)).double()
    assert counts.sum() == DRAWS
    assert counts[expected == 0].sum() == 0
    common = expected * DRAWS >= 5
    observed = torch.cat((counts[common], counts[~common].sum()[None]))
    wanted = torch.cat((expected[common], expected[~common].sum()[None])) * DRAWS
    statistic = ((observed - wanted).square() / wanted.clamp(min=1e-9))[wanted > 0].sum().item()
    freedom = max(int((wanted > 0).sum()) - 1, 0)
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("settings", SETTINGS, ids=described)
def test_probabilities_are_the_oracles(checkpoint, monkeypatch, settings):
    """What is drawn from has the oracle's probabilities in every row, tokens that it drops have none."""
    drawn_from = []
    multinomial = torch.multinomial

    def draw(probabilities: Tensor, *arguments, **options) -> Tensor:
        drawn_from.append(probabilities)
        return multinomial(probabilities, *arguments, **options)

    monkeypatch.setattr(torch, "multinomial", draw)
    written = checkpoint(first_case())
    ids = token_ids(8, 5)
    written.load().generate(ids, do_sample=True, max_new_tokens=1, **settings)
    (found,) = drawn_from
    with torch.no_grad():
        logits = written.reference()(ids).logits[:, -1]
    for row in range(len(ids)):
        expected = expected_probabilities(ids[row : row + 1], logits[row : row + 1], settings)
        assert torch.equal(found[row] == 0, expected == 0)
        assert_close(found[row].double(), expected, 1e-5)


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_seed(checkpoint, case):
    """One seed, one text, whatever the global random state is; another seed, another text; the global state stays."""
    model = checkpoint(case).load()
    ids = token_ids(2, 6)
    options = {"do_sample": True, "max_new_tokens": 24, "min_new_tokens": 24}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = model.generate(ids, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(model.generate(ids, seed=3, **options), first)
    assert not torch.equal(model.generate(ids, seed=4, **options), first)


def test_without_a_seed_the_global_random_state_decides(checkpoint):
    model = checkpoint(first_case()).load()
    options = {"do_sample": True, "max_new_tokens": 24, "min_new_tokens": 24}
    torch.manual_seed(1)
    first = model.generate(token_ids(), **options)
    second = model.generate(token_ids(), **options)
    torch.manual_seed(1)
    assert torch.equal(model.generate(token_ids(), **options), first)
    assert not torch.equal(second, first)


def test_temperature_zero_is_greedy_search(checkpoint):
    model = checkpoint(first_case()).load()
    options = {"max_new_tokens": 12, "min_new_tokens": 12}
    sampled = model.generate(token_ids(), do_sample=True, temperature=0.0, seed=1, **options)
    assert torch.equal(sampled, model.generate(token_ids(), do_sample=False, **options))


def test_rows_are_drawn_independently(checkpoint):
    drawn = (
        checkpoint(first_case())
        .load()
        .generate(token_ids(1, 5).expand(50, -1), do_sample=True, max_new_tokens=8, min_new_tokens=8, seed=0)
    )
    assert len({tuple(row) for row in drawn.tolist()}) > 40


@pytest.mark.parametrize("settings", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.2}], ids=described)
def test_greedy_search_ignores_what_shapes_sampling(checkpoint, settings):
    model = checkpoint(first_case()).load()
    options = {"do_sample": False, "max_new_tokens": 12}
    assert torch.equal(model.generate(token_ids(), **options, **settings), model.generate(token_ids(), **options))


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1.0}, {"top_p": -0.5}, {"top_p": 1.5}, {"top_k": -1}],
    ids=described,
)
def test_settings_outside_their_range_are_refused(checkpoint, settings):
    """The error names the setting and the value."""
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        checkpoint(first_case()).load().generate(token_ids(), do_sample=True, max_new_tokens=2, **settings)
