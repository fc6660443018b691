"""Every option of a call, alone and with others: the same answer as transformers'."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from tokenization.conftest import Pair

TEXTS = [
    "Sir Walter Elliot, of Kellynch Hall",
    "a",
    "",
    "in Somersetshire, was a man who, for his own amusement",
    "我们",
]
PAIRS = ["never took up any book", "but the Baronetage; there he found", "occupation", "", "for an idle hour 🙂"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"add_special_tokens": False},
    {"padding": True},
    {"padding": "longest", "pad_to_multiple_of": 8, "padding_side": "left"},
    {"padding": "max_length", "max_length": 40},
    {"padding": "max_length", "max_length": 9, "truncation": True},
    {"max_length": 7, "truncation": "longest_first"},
    {"max_length": 7},
    {"truncation": True},
    {"truncation": False, "max_length": 5},
    {"return_token_type_ids": True, "return_attention_mask": False},
    {"return_special_tokens_mask": True, "padding": True},
    {"return_length": True},
    {"padding": True, "return_tensors": "pt"},
    {"padding": True, "return_tensors": "np", "truncation": True, "max_length": 6},
]
WITH_OVERFLOW: list[dict[str, Any]] = [
    {"max_length": 9, "truncation": True, "return_overflowing_tokens": True},
    {"max_length": 9, "truncation": True, "stride": 3, "return_overflowing_tokens": True, "return_offsets_mapping": True},
    {"max_length": 12, "truncation": True, "stride": 2, "return_overflowing_tokens": True, "padding": "max_length",
     "return_special_tokens_mask": True, "return_length": True, "return_tensors": "pt"},
]  # fmt: skip


def same(found: Any, expected: Any) -> None:
    """Equal names, types and values."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert type(found[name]) is type(values), name
        if isinstance(values, (torch.Tensor, np.ndarray)):
            assert found[name].dtype == values.dtype
            assert found[name].tolist() == values.tolist()
        else:
            assert found[name] == values


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["minilm", "roberta", "t5", "bert"])
def test_options(name: str, options: dict[str, Any], pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair(name)
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    same(ours(TEXTS, PAIRS, **options), theirs(TEXTS, PAIRS, **options))
    same(ours(TEXTS[0], PAIRS[0], **options), theirs(TEXTS[0], PAIRS[0], **options))
    same(ours(TEXTS[0], **options), theirs(TEXTS[0], **options))


@pytest.mark.parametrize("options", WITH_OVERFLOW, ids=str)
@pytest.mark.parametrize("name", ["minilm", "roberta", "t5", "xlm-roberta"])
def test_overflow(name: str, options: dict[str, Any], pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair(name)
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    same(ours(TEXTS[3], **options), theirs(TEXTS[3], **options))
    second = {**options, "truncation": "only_second", "max_length": 40}
    same(ours(TEXTS, PAIRS, **second), theirs(TEXTS, PAIRS, **second))


def test_overflow_in_python(pair: Callable[[str], Pair]) -> None:
    """One row, and what was cut off beside it."""
    ours, theirs = pair("bert")
    options = {"max_length": 8, "truncation": True, "stride": 2, "return_overflowing_tokens": True}
    found, expected = ours(TEXTS[3], **options), theirs(TEXTS[3], **options)
    assert dict(found) == dict(expected)
    assert found["num_truncated_tokens"] > 0
    for strategy in ("only_first", "only_second"):
        options = {"max_length": 16, "truncation": strategy, "return_overflowing_tokens": True}
        found, expected = ours(TEXTS[3], PAIRS[1], **options), theirs(TEXTS[3], PAIRS[1], **options)
        assert dict(found) == dict(expected)


@pytest.mark.parametrize("name", ["minilm", "bert"])
def test_left(name: str, pair: Callable[[str], Pair]) -> None:
    """Cut and filled up at the left."""
    ours, theirs = (deepcopy(tokenizer) for tokenizer in pair(name))
    for tokenizer in (ours, theirs):
        tokenizer.truncation_side = tokenizer.padding_side = "left"
    options: dict[str, Any] = {"max_length": 7, "truncation": True, "padding": "max_length"}
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    assert ours(TEXTS, **options)["input_ids"] != pair(name).ours(TEXTS, **options)["input_ids"]
    same(ours(TEXTS[:3], PAIRS[:3], **options), theirs(TEXTS[:3], PAIRS[:3], **options))


@pytest.mark.parametrize("name", ["minilm", "bert", "llama", "xlm-roberta"])
def test_words(name: str, pair: Callable[[str], Pair]) -> None:
    """Texts that are split into words."""
    ours, theirs = pair(name)
    words, more = ["Sir", "Walter", "Elliot", ",", "Kellynch"], ["unaffected", ""]
    same(ours(words, is_split_into_words=True), theirs(words, is_split_into_words=True))
    same(ours([words, more], is_split_into_words=True), theirs([words, more], is_split_into_words=True))
    same(ours(words, more, is_split_into_words=True), theirs(words, more, is_split_into_words=True))
    if ours.is_fast:
        assert ours(words, is_split_into_words=True).word_ids() == theirs(words, is_split_into_words=True).word_ids()


@pytest.mark.parametrize("name", ["minilm", "gpt2", "bert"])
def test_targets_and_lists_of_pairs(name: str, pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair(name)
    same(ours(TEXTS, text_target=PAIRS), theirs(TEXTS, text_target=PAIRS))
    same(ours(text_target="a b"), theirs(text_target="a b"))
    both = list(zip(TEXTS, PAIRS, strict=True))
    same(ours(both), theirs(both))
    assert ours.encode("a b", "c", max_length=4, truncation=True) == theirs.encode(
        "a b", "c", max_length=4, truncation=True
    )
    assert ours.tokenize("Somersetshire unaffected") == theirs.tokenize("Somersetshire unaffected")


@pytest.mark.parametrize("name", ["minilm", "llama", "bert"])
def test_pad(name: str, pair: Callable[[str], Pair]) -> None:
    """Rows that were encoded before, in all forms they come in."""
    ours, theirs = (deepcopy(tokenizer) for tokenizer in pair(name))
    for tokenizer in (ours, theirs):
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
    rows = [{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}]
    for options in ({}, {"return_tensors": "pt"}, {"padding": "max_length", "max_length": 6, "padding_side": "left"}):
        same(ours.pad(deepcopy(rows), **options), theirs.pad(deepcopy(rows), **options))
    same(ours.pad({"input_ids": [[1, 2], [3]]}), theirs.pad({"input_ids": [[1, 2], [3]]}))
    same(
        ours.pad({"input_ids": torch.tensor([1, 2])}, pad_to_multiple_of=4),
        theirs.pad({"input_ids": torch.tensor([1, 2])}, pad_to_multiple_of=4),
    )
    batch = [ours(text) for text in TEXTS]
    same(ours.pad(batch, return_tensors="np"), theirs.pad([theirs(text) for text in TEXTS], return_tensors="np"))


def test_where_tokens_stand(pair: Callable[[str], Pair]) -> None:
    """The methods of a BatchEncoding, with and without the number of the text."""
    ours, theirs = pair("minilm")
    found, expected = ours(TEXTS, PAIRS, padding=True), theirs(TEXTS, PAIRS, padding=True)
    one, other = ours(TEXTS[3], PAIRS[0]), theirs(TEXTS[3], PAIRS[0])
    assert found.is_fast and found.n_sequences == expected.n_sequences == 2
    for row in range(len(TEXTS)):
        assert found.tokens(row) == expected.tokens(row)
        assert found.sequence_ids(row) == expected.sequence_ids(row)
        assert found.word_ids(row) == expected.word_ids(row)
        for method in ("token_to_sequence", "token_to_word", "token_to_chars"):
            for token in (0, 1, 2):
                assert getattr(found, method)(row, token) == getattr(expected, method)(row, token)
    for sequence in (0, 1):
        for index in range(8):
            for method in ("char_to_token", "char_to_word", "word_to_tokens", "word_to_chars"):
                if method == "word_to_chars" and one.word_to_tokens(index, sequence_index=sequence) is None:
                    assert one.word_to_chars(index, sequence_index=sequence) is None
                    continue
                answer = getattr(one, method)(index, sequence_index=sequence)
                assert answer == getattr(other, method)(index, sequence_index=sequence)
    assert one.token_to_chars(1) == other.token_to_chars(1)
    assert one.token_to_chars(0) is one.token_to_chars(-1) is None
    assert one.token_to_chars(-2) == one.token_to_chars(len(one["input_ids"]) - 2) is not None
    assert found[1].ids == found["input_ids"][1] == found.input_ids[1]
    assert found[1:3]["input_ids"] == found["input_ids"][1:3]
    assert pickle.loads(pickle.dumps(found.data)) == dict(found)
    moved = ours("a b", return_tensors="pt").to("meta")
    assert moved["input_ids"].device.type == "meta"


@pytest.mark.parametrize("name", ["minilm", "smollm2", "roberta", "llama", "t5", "bert"])
def test_tokens(name: str, pair: Callable[[str], Pair]) -> None:
    """The vocabulary and what is said of it."""
    ours, theirs = pair(name)
    assert ours.get_vocab() == theirs.get_vocab()
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert {n: str(t) for n, t in ours.added_tokens_decoder.items()} == {
        n: str(t) for n, t in theirs.added_tokens_decoder.items()
    }
    assert set(ours.all_special_ids) == set(theirs.all_special_ids)
    assert ours.model_max_length == theirs.model_max_length
    assert ours.model_input_names == theirs.model_input_names
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    for pairs in (False, True):
        assert ours.num_special_tokens_to_add(pairs) == theirs.num_special_tokens_to_add(pairs)
    ids = ours("Sir Walter")["input_ids"]
    tokens = ours.convert_ids_to_tokens(ids)
    assert tokens == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens) == ids
    assert ours.convert_ids_to_tokens(ids[0]) == theirs.convert_ids_to_tokens(ids[0])
    assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == theirs.convert_ids_to_tokens(
        ids, skip_special_tokens=True
    )
    assert ours.convert_tokens_to_ids("no such token") == theirs.convert_tokens_to_ids("no such token")
    assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    assert ours.get_special_tokens_mask(ids, already_has_special_tokens=True) == theirs.get_special_tokens_mask(
        ids, already_has_special_tokens=True
    )
    for given in (ids, torch.tensor(ids), [ids, ids[:2]], ids[0], np.array([ids, ids])):
        assert ours.decode(given) == theirs.decode(given)
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["minilm", "gpt2", "t5", "bert"])
def test_added_tokens(name: str, pair: Callable[[str], Pair]) -> None:
    """Tokens of a user's own, with everything that may be said of them."""
    from unibody import AddedToken

    ours, theirs = deepcopy(pair(name).ours), deepcopy(pair("minilm" if name == "bert" else name).theirs)
    added = [
        AddedToken("<Left>", lstrip=True), AddedToken("<right>", rstrip=True), AddedToken("zqz", single_word=True),
        AddedToken("Nqrm", normalized=True), "<ab>", "<abc>",
    ]  # fmt: skip
    assert ours.add_tokens(added) == theirs.add_tokens(added) == len(added)
    special = {"additional_special_tokens": ["<im>"], "bos_token": "<begin>"}
    assert ours.add_special_tokens(special) == theirs.add_special_tokens(special)
    text = "x <Left> y <right>  z zqz zqzs ezqz zqz.Nqrm <abc><ab> <im>a <begin>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert len(ours) == len(theirs)
    if ours.is_fast:
        assert ours.decode(ours(text)["input_ids"]) == theirs.decode(ours(text)["input_ids"])
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)
    assert ours.bos_token == "<begin>"
    ours.pad_token_id = theirs.pad_token_id = ours.convert_tokens_to_ids("<im>")
    assert ours.pad_token == theirs.pad_token == "<im>"
    ours.mask_token = None
    assert ours.mask_token is ours.mask_token_id is None
