"""`generate` and `stream`: the oracle's greedy tokens, batches with left padding, ends of rows, streaming."""

from __future__ import annotations

import pytest
import torch
from oracle.inputs import PAD, padded_batch, token_ids
from oracle.reference import SCALES, Checkpoint
from oracle.zoo import cases, first_case
from torch import Tensor

NEW = 32
CACHES = ("dynamic", "static")

every_case = pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
every_cache = pytest.mark.parametrize("cache", CACHES)


def oracles_tokens(written: Checkpoint, ids: Tensor, **options) -> Tensor:
    """What the oracle's greedy search gives."""
    with torch.no_grad():
        return written.reference().generate(ids, do_sample=False, **options)


@pytest.mark.parametrize("scale", SCALES)
@every_case
def test_32_greedy_tokens(checkpoint, case, scale):
    written = checkpoint(case, scale)
    ids = token_ids(1, 9)
    expected = oracles_tokens(written, ids, min_new_tokens=NEW, max_new_tokens=NEW)
    assert len(set(expected[0].tolist())) > 7, "a text that repeats one token proves little"
    for cache in CACHES:
        ours = written.load().generate(ids, min_new_tokens=NEW, max_new_tokens=NEW, cache_implementation=cache)
        assert torch.equal(ours, expected), cache


@every_case
def test_batch_with_left_padding(checkpoint, case):
    """Each row of a padded batch continues as in the oracle's batch, and, as far as that holds there, as it does alone."""
    written = checkpoint(case)
    lengths = (9, 4, 1)
    batch = padded_batch(lengths)
    options = {"min_new_tokens": NEW, "max_new_tokens": NEW}
    expected = oracles_tokens(written, batch.input_ids, attention_mask=batch.attention_mask, **options)
    model = written.load()
    for cache in CACHES:
        ours = model.generate(batch.input_ids, batch.attention_mask, cache_implementation=cache, **options)
        assert torch.equal(ours, expected), cache
    if case.config.get("rope_parameters", {}).get("rope_type") != "dynamic":
        for row, length in enumerate(lengths):
            alone = model.generate(batch.input_ids[row : row + 1, -length:], **options)
            assert torch.equal(alone[0, length:], expected[row, 9:])


@every_case
def test_rows_end_and_are_padded(checkpoint, case):
    """A row stops at its first end token and is filled with padding; the text stops when every row has ended."""
    written = checkpoint(case)
    ids = token_ids(3, 9)
    free = oracles_tokens(written, ids, min_new_tokens=NEW, max_new_tokens=NEW)[:, 9:]
    ends = [free[0, 4].item(), free[1, 11].item(), free[2, 7].item()]
    model = written.load()
    padded = False
    for eos in (ends, ends[0], ends[:2]):
        expected = oracles_tokens(written, ids, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=PAD)
        ours = model.generate(ids, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=PAD)
        assert torch.equal(ours, expected)
        padded = padded or bool((ours == PAD).any())
    assert padded, "no row ended before another: the test would not see missing padding"
    stopped = model.generate(ids, max_new_tokens=NEW, eos_token_id=ends)
    assert stopped.shape[1] < 9 + NEW


@every_case
def test_configuration_names_the_end_and_the_padding(checkpoint, case):
    """Without arguments the end and padding tokens of config.json count."""
    written = checkpoint(case)
    ids = token_ids(2, 9)
    model = written.load()
    free = model.generate(ids, min_new_tokens=NEW, max_new_tokens=NEW)[:, 9:]
    model.config.eos_token_id = free[0, 5].item()
    model.config.pad_token_id = 1
    stated = model.generate(ids, max_new_tokens=NEW)
    given = model.generate(ids, max_new_tokens=NEW, eos_token_id=free[0, 5].item(), pad_token_id=1)
    assert torch.equal(stated, given)
    assert (
        stated[0, 9:].tolist()
        == [*free[0, : free[0].tolist().index(free[0, 5]) + 1].tolist(), *[1] * NEW][: stated.shape[1] - 9]
    )


@every_case
def test_min_new_tokens_holds_the_end_back(checkpoint, case):
    written = checkpoint(case)
    ids = token_ids(2, 9)
    free = oracles_tokens(written, ids, min_new_tokens=NEW, max_new_tokens=NEW)[:, 9:]
    eos = free[0, 2].item()
    for least in (0, 3, 10):
        options = {"min_new_tokens": least, "max_new_tokens": 16, "eos_token_id": eos, "pad_token_id": PAD}
        ours = written.load().generate(ids, **options)
        assert torch.equal(ours, oracles_tokens(written, ids, **options))
        assert eos not in ours[:, 9 : 9 + least]


class Listener:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.heard: list[Tensor | str] = []

    def put(self, ids: Tensor) -> None:
        self.heard.append(ids.clone())

    def end(self) -> None:
        self.heard.append("end")


@every_case
def test_stream_gives_the_tokens_of_generate_one_by_one(checkpoint, case):
    written = checkpoint(case)
    batch = padded_batch((9, 4))
    options = {"attention_mask": batch.attention_mask, "max_new_tokens": 12, "min_new_tokens": 12}
    whole = written.load().generate(batch.input_ids, **options)
    steps = list(written.load().stream(batch.input_ids, **options))
    assert [step.shape for step in steps] == [(2,)] * 12
    assert torch.equal(torch.stack(steps, 1), whole[:, 9:])

    listener = Listener()
    heard_whole = written.load().generate(batch.input_ids, streamer=listener, **options)
    assert torch.equal(heard_whole, whole)
    assert listener.heard[-1] == "end"
    assert torch.equal(torch.stack(listener.heard[-13:-1], 1), whole[:, 9:])


def test_stream_computes_no_token_before_it_is_asked_for(checkpoint):
    model = checkpoint(first_case()).load()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    stream = model.stream(token_ids(), max_new_tokens=8, min_new_tokens=8)
    assert len(calls) == 0
    next(stream)
    next(stream)
    assert len(calls) == 2
    stream.close()
    assert len(calls) == 2


@every_cache
@every_case
def test_a_second_text_does_not_depend_on_the_first(checkpoint, case, cache):
    """Nothing is left of an earlier, longer text: not in the rotary table, not in the caches."""
    model = checkpoint(case).load()
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "cache_implementation": cache}
    fresh = model.generate(token_ids(1, 5), **options)
    model.generate(token_ids(2, 30, seed=1), **{**options, "max_new_tokens": 30})
    assert torch.equal(model.generate(token_ids(1, 5), **options), fresh)


def test_generation_builds_no_graph_and_keeps_the_mode(checkpoint):
    model = checkpoint(first_case()).load()
    model.train()
    tokens = model.generate(token_ids(), max_new_tokens=3)
    assert not tokens.requires_grad
    assert model.training


def test_new_tokens_after_a_cache_that_holds_the_beginning(checkpoint):
    """With `past_key_values` of the first tokens, generation continues from them."""
    case = first_case()
    model = checkpoint(case).load()
    ids = token_ids(2, 9)
    whole = model.generate(ids, max_new_tokens=10, min_new_tokens=10)
    with torch.no_grad():
        past = model(ids[:, :6]).past_key_values
    assert past.length == 6
    assert torch.equal(model.generate(ids, past_key_values=past, max_new_tokens=10, min_new_tokens=10), whole)


@pytest.mark.parametrize("new", [0, 1])
def test_few_new_tokens(checkpoint, new):
    ids = token_ids()
    ours = checkpoint(first_case()).load().generate(ids, max_new_tokens=new)
    assert ours.shape == (2, 20 + new)
    assert torch.equal(ours[:, :20], ids)
