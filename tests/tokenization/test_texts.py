"""Ten thousand lines of all kinds: the same numbers, offsets and decoded texts as transformers'."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tokenization.conftest import FAST, Pair
from tokenization.texts import ten_thousand_lines


@pytest.mark.parametrize("name", FAST)
def test_numbers_and_offsets(name: str, pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair(name)
    lines = ten_thousand_lines()
    options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
    found, expected = ours(lines, **options), theirs(lines, **options)
    assert dict(found) == dict(expected)
    assert len({tuple(row) for row in found["input_ids"]}) > 7000
    assert ours.batch_decode(found["input_ids"]) == theirs.batch_decode(found["input_ids"])
    skipped = ours.batch_decode(found["input_ids"], skip_special_tokens=True)
    assert skipped == theirs.batch_decode(found["input_ids"], skip_special_tokens=True)
    assert [found.word_ids(i) for i in range(0, 10_000, 97)] == [expected.word_ids(i) for i in range(0, 10_000, 97)]


def test_in_python(pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair("bert")
    lines = ten_thousand_lines()
    found, expected = ours(lines), theirs(lines)
    assert dict(found) == dict(expected)
    assert ours.batch_decode(found["input_ids"]) == theirs.batch_decode(found["input_ids"])
    assert [ours.tokenize(line) for line in lines[::17]] == [theirs.tokenize(line) for line in lines[::17]]
