"""What ends a text: stop strings across tokens, time, and the user's own criteria."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from generation.conftest import Pair
from oracle.inputs import token_ids
from oracle.tokenizer import tiny_tokenizer
from torch import Tensor

import unibody

TOKENIZER = tiny_tokenizer()
FAST = transformers.PreTrainedTokenizerFast(tokenizer_object=TOKENIZER)
TEXT = "a héllo, the lazy dog: baco fabi </s> 你 deco."


def rows_of(text: str) -> Tensor:
    return torch.tensor([TOKENIZER.encode(text).ids])


STOPS = (
    "llo",
    "é",
    "o, the",
    "zy d",
    "bac",
    "ac",
    "co f",
    "fabi",
    "abi ",
    "lazy",
    "x",
    "h",
    ["qq", "dog"],
    "héllo, the lazy dog",
)


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_stop_strings(stop: Any) -> None:
    """At each length of a text the oracle's answer: strings begin and end inside of tokens, characters have several."""
    ids = rows_of(TEXT)
    ours, theirs = unibody.StopStringCriteria(FAST, stop), transformers.StopStringCriteria(FAST, stop)
    answers = [bool(ours(ids[:, :end], None)) for end in range(1, ids.shape[1] + 1)]
    assert answers == [bool(theirs(ids[:, :end], None)) for end in range(1, ids.shape[1] + 1)]
    assert any(answers) == (stop != "x")
    plain = unibody.StopStringCriteria(TOKENIZER, stop)
    assert [bool(plain(ids[:, :end], None)) for end in range(1, ids.shape[1] + 1)] == answers


def test_stop_strings_of_generated_text(llama: Pair) -> None:
    ids = token_ids(2, 9)
    free = llama.ours(ids, max_new_tokens=24)
    text = FAST.decode(free[0, 9:])
    for stop in (text[5:8], [text[5:7], text[2:4]]):
        expected = llama.theirs(ids, max_new_tokens=24, stop_strings=stop, tokenizer=FAST)
        found = llama.ours(ids, max_new_tokens=24, stop_strings=stop, tokenizer=FAST)
        assert torch.equal(found, expected)
        assert not torch.equal(found, free)
        beams = {"num_beams": 3, "max_new_tokens": 12, "stop_strings": stop, "tokenizer": FAST}
        assert torch.equal(llama.ours(ids, **beams), llama.theirs(ids, **beams))


def test_time(llama: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step in which the time is up is the last."""
    clock = iter(range(100))
    monkeypatch.setattr("unibody.generation.stopping.time.time", lambda: float(next(clock)))
    assert llama.ours(token_ids(1, 5), max_new_tokens=20, max_time=3.0).shape[1] == 5 + 4


@pytest.mark.parametrize("answer", [True, torch.tensor([True, False])], ids=["for all", "for one"])
def test_users_criteria(llama: Pair, answer: Any) -> None:
    """A criterion answers for each text, or for all at once; it gets the scores if they are returned."""
    seen: list[Any] = []

    def at_twelve(ids: Tensor, scores: Any, **_: Any) -> Any:
        seen.append(scores)
        return answer if ids.shape[1] == 12 else torch.zeros(2, dtype=torch.bool)

    ids = token_ids(2, 9)
    found = llama.ours(ids, max_new_tokens=6, stopping_criteria=[at_twelve])
    assert seen == [None] * len(seen)
    free = llama.ours(ids, max_new_tokens=6)
    if answer is True:
        assert torch.equal(found, free[:, :12])
    else:
        assert torch.equal(found[1], free[1])
        assert torch.equal(found[0, :12], free[0, :12])
        assert (found[0, 12:] == 1).all()
        assert torch.equal(found, llama.theirs(ids, max_new_tokens=6, stopping_criteria=[at_twelve]))
    seen.clear()
    llama.ours(ids, max_new_tokens=2, stopping_criteria=[at_twelve], return_dict_in_generate=True, output_scores=True)
    assert [len(scores) for scores in seen] == [1, 2]


def test_ends(llama: Pair) -> None:
    """One end or several; none, if the call says so."""
    ids = token_ids(3, 9)
    free = llama.ours(ids, max_new_tokens=16, eos_token_id=None)
    for ends in (int(free[0, 12]), [int(free[0, 12]), int(free[1, 10])]):
        found = llama.assert_same(ids, max_new_tokens=16, eos_token_id=ends)
        assert not torch.equal(found, free)
    assert free.shape[1] == 9 + 16
