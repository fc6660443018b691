"""What holds of any text: round trips, offsets that slice it, padding and truncation that keep what they should."""

from __future__ import annotations

import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenization.conftest import Pair
from tokenization.texts import ten_thousand_lines

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)
several = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
@given(text=TEXTS)
@several
def test_bytes_round_trip(name: str, pair: Callable[[str], Pair], text: str) -> None:
    """Byte-level BPE with all 256 bytes loses nothing."""
    tokenizer = pair(name).ours
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids)) == ids


@given(text=st.text(string.ascii_letters + string.digits + " ", max_size=60))
@several
def test_pieces_of_words_round_trip(pair: Callable[[str], Pair], text: str) -> None:
    """WordPiece keeps words of plain letters, in lower case, with one space between."""
    for name in ("minilm", "bert"):
        tokenizer = pair(name).ours
        found = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
        assert found == " ".join(text.lower().split())


@pytest.mark.parametrize("name", ["minilm", "smollm2", "roberta", "llama", "t5", "xlm-roberta"])
@given(text=TEXTS)
@several
def test_offsets(name: str, pair: Callable[[str], Pair], text: str) -> None:
    """They lie in the text, one after another, and `char_to_token` leads back."""
    found = pair(name).ours(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    before = 0
    for token, ((start, end), special) in enumerate(
        zip(found["offset_mapping"], found["special_tokens_mask"], strict=True)
    ):
        assert 0 <= start <= end <= len(text)
        if special:
            assert (start, end) == (0, 0)
            continue
        assert start >= before - 1  # bytes of one character share it
        before = start
        if start < end:
            assert found.token_to_chars(token) == (start, end)
            assert found.char_to_token(start) is not None


@given(text=st.text(string.ascii_lowercase + " .,!", min_size=1, max_size=60))
@several
def test_offsets_slice_the_text(pair: Callable[[str], Pair], text: str) -> None:
    found = pair("minilm").ours(text, return_offsets_mapping=True)
    for token, (start, end) in zip(found.tokens()[1:-1], found["offset_mapping"][1:-1], strict=True):
        assert token in ("[UNK]", text[start:end], f"##{text[start:end]}")


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4), length=st.integers(3, 20), side=st.sampled_from(["left", "right"])
)
@several
def test_padding_and_truncation(pair: Callable[[str], Pair], texts: list[str], length: int, side: str) -> None:
    for name in ("minilm", "bert"):
        tokenizer = pair(name).ours
        whole = tokenizer(texts)["input_ids"]
        cut = tokenizer(texts, truncation=True, max_length=length, padding="max_length", padding_side=side)
        for row, mask, full in zip(cut["input_ids"], cut["attention_mask"], whole, strict=True):
            assert len(row) == len(mask) == length
            kept = [number for number, seen in zip(row, mask, strict=True) if seen]
            assert kept == (full if len(full) <= length else [*full[: length - 1], full[-1]])
            assert mask == sorted(mask, reverse=side == "right")


@given(text=TEXTS, length=st.integers(6, 20), stride=st.integers(0, 3))
@several
def test_parts_cover_the_text(pair: Callable[[str], Pair], text: str, length: int, stride: int) -> None:
    """The parts that overflow, without what they have in common, are the whole."""
    tokenizer = pair("minilm").ours
    parts = tokenizer(text, truncation=True, max_length=length, stride=stride, return_overflowing_tokens=True)[
        "input_ids"
    ]
    joined = parts[0][1:-1]
    for part in parts[1:]:
        joined += part[1 + stride : -1]
    assert joined == tokenizer(text)["input_ids"][1:-1]


def test_threads(pair: Callable[[str], Pair]) -> None:
    """Calls with different lengths do not disturb each other."""
    tokenizer, lines = pair("smollm2").ours, ten_thousand_lines()[:400]
    lengths = [4, 9, 17, None] * 6
    expected = {length: tokenizer(lines, truncation=True, max_length=length)["input_ids"] for length in set(lengths)}
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda length: tokenizer(lines, truncation=True, max_length=length)["input_ids"], lengths)
        assert list(found) == [expected[length] for length in lengths]
