"""What a tokenizer's files are: every form is read, what is written is read again, by transformers too."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import transformers

import unibody
from tokenization.conftest import FAST, Pair, prose
from unibody import AddedToken

LINES = [*prose()[:50], "<im> [MASK] <mask> 🙂 x<new>y"]


@pytest.mark.parametrize("name", [*FAST, "bert"])
def test_round_trip(name: str, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    """Saved with tokens of a user's own and opened again, here and by transformers: the same numbers."""
    tokenizer = deepcopy(pair(name).ours)
    tokenizer.add_tokens(["<new>", AddedToken("qqq", single_word=True, normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<im>", rstrip=True, special=True)]})
    tokenizer.model_max_length = 77
    expected = tokenizer(LINES)["input_ids"]
    files = tokenizer.save_pretrained(tmp_path)
    assert {Path(file).name for file in files} >= {"tokenizer_config.json", "special_tokens_map.json"}
    assert all(Path(file).is_file() for file in files)
    again = unibody.AutoTokenizer.from_pretrained(tmp_path, use_fast=tokenizer.is_fast)
    assert type(again) is type(tokenizer)
    assert again(LINES)["input_ids"] == expected
    assert again.model_max_length == 77
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.added_tokens_encoder == tokenizer.added_tokens_encoder
    if tokenizer.is_fast:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        last = -1 if name == "qwen2" else None  # this class of theirs forgets `rstrip`, of its own files too
        assert theirs(LINES)["input_ids"][:last] == expected[:last]
        assert theirs.model_max_length == 77
        theirs.save_pretrained(tmp_path / "theirs")
        back = unibody.AutoTokenizer.from_pretrained(tmp_path / "theirs")
        assert back(LINES)["input_ids"][:last] == expected[:last]


@pytest.mark.parametrize("name", ["minilm", "smollm2", "bert"])
def test_pickle(name: str, pair: Callable[[str], Pair]) -> None:
    tokenizer = pair(name).ours
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    assert again.special_tokens_map == tokenizer.special_tokens_map


@pytest.mark.parametrize(
    ("name", "files"),
    [("minilm", ["vocab.txt"]), ("gpt2", ["vocab.json", "merges.txt"]), ("roberta", ["vocab.json", "merges.txt"])],
)
def test_the_vocabulary_alone(
    name: str, files: list[str], folder: Callable[[str], Path], pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    """Old checkpoints have no tokenizer.json, and say little: a model type, and added tokens in a file of their own."""
    place = tmp_path / "old"
    place.mkdir()
    for file in files:
        shutil.copy(folder(name) / file, place)
    kind = {"minilm": "bert"}.get(name, name)
    (place / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    size = pair(name).ours.vocab_size
    (place / "added_tokens.json").write_text(json.dumps({"<im>": size + 1, "<new>": size}), encoding="utf-8")
    (place / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": [{"content": "<im>", "lstrip": True}]}), encoding="utf-8"
    )
    tokenizer = unibody.AutoTokenizer.from_pretrained(place)
    expected = deepcopy(pair(name).theirs)
    expected.add_tokens(["<new>"])
    expected.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<im>", lstrip=True, special=True, normalized=False)]}
    )
    assert tokenizer(LINES)["input_ids"] == expected(LINES)["input_ids"]
    assert tokenizer.additional_special_tokens == ["<im>"]
    # And written as such.
    written = tokenizer.save_pretrained(tmp_path / "again", legacy_format=True)
    assert {Path(file).name for file in written} >= {*files, "added_tokens.json"}
    assert "tokenizer.json" not in {Path(file).name for file in written}
    for file in files:
        mine, original = ((where / file).read_text(encoding="utf-8") for where in (tmp_path / "again", place))
        assert (
            (json.loads(mine) == json.loads(original)) if file.endswith(".json") else mine.split() == original.split()
        )
    assert (
        unibody.AutoTokenizer.from_pretrained(tmp_path / "again")(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    )


def test_one_format_only(pair: Callable[[str], Pair], tmp_path: Path) -> None:
    files = pair("minilm").ours.save_pretrained(tmp_path / "json", legacy_format=False, filename_prefix="x")
    assert sorted(Path(file).name for file in files) == [
        "x-special_tokens_map.json", "x-tokenizer.json", "x-tokenizer_config.json",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"PreTrainedTokenizerFast has no vocabulary file but tokenizer\.json"):
        pair("smollm2").ours.save_pretrained(tmp_path / "old", legacy_format=True)


def test_settings_that_are_not_known_are_kept(folder: Callable[[str], Path], tmp_path: Path) -> None:
    place = tmp_path / "mine"
    shutil.copytree(folder("smollm2"), place)
    values = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
    values |= {"my_own": {"deep": [1, 2]}, "extra_special_tokens": {"image_token": "<|im_start|>"}}
    (place / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    tokenizer = unibody.AutoTokenizer.from_pretrained(place, model_max_length=12)
    assert tokenizer.image_token == "<|im_start|>"
    assert tokenizer.image_token_id == tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert again["my_own"] == {"deep": [1, 2]}
    assert again["model_max_length"] == 12
    assert unibody.AutoTokenizer.from_pretrained(tmp_path / "again").image_token == "<|im_start|>"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("minilm", {"do_lower_case": False}),
        ("minilm", {"strip_accents": False, "tokenize_chinese_chars": False}),
        ("minilm", {"model_max_length": 5, "padding_side": "left"}),
        ("gpt2", {"add_prefix_space": True}),
        ("smollm2", {"bos_token": "<|endoftext|>", "pad_token": "<fill>"}),
    ],
)
def test_settings_of_a_call(name: str, settings: dict[str, Any], folder: Callable[[str], Path]) -> None:
    """What is passed goes before what the files say."""
    ours = unibody.AutoTokenizer.from_pretrained(folder(name), **settings)
    expected = transformers.AutoTokenizer.from_pretrained(folder(name), **settings)
    lines = ["Ärger und Éclair 我们", "Sir Walter", *LINES[:5]]
    ours.pad_token = ours.pad_token or ours.eos_token
    expected.pad_token = expected.pad_token or expected.eos_token
    options: dict[str, Any] = {"padding": True, "truncation": name == "minilm"}
    assert ours(lines, **options)["input_ids"] == expected(lines, **options)["input_ids"]


@pytest.mark.parametrize("name", ["minilm", "gpt2", "llama", "t5"])
def test_trained_anew(name: str, pair: Callable[[str], Pair]) -> None:
    """The same steps over another vocabulary, which is what the same trainer makes of the same texts."""
    ours, theirs = pair(name)
    found = ours.train_new_from_iterator([prose()[:600]], 400, new_special_tokens=["<mine>"])
    expected = theirs.train_new_from_iterator([prose()[:600]], 400, new_special_tokens=["<mine>"], show_progress=False)
    lines = ["Sir Walter Elliot <mine>", *prose()[600:700]]
    assert type(found) is type(ours)
    assert len(found) == len(expected)
    assert found.convert_tokens_to_ids("<mine>") == expected.convert_tokens_to_ids("<mine>")
    numbers = found(lines)["input_ids"]
    if name in ("gpt2", "llama"):
        assert numbers == expected(lines)["input_ids"]
    else:  # which of equally good pieces is learned differs from run to run
        assert [row[-1] for row in numbers] == [row[-1] for row in expected(lines)["input_ids"]]
        assert sum(map(len, numbers)) == pytest.approx(sum(map(len, expected(lines)["input_ids"])), rel=0.02)


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_a_side_that_was_changed_is_written(side: str, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    """The files of minilm say nothing of it; changed, it is read again, here and by transformers."""
    tokenizer = deepcopy(pair("minilm").ours)
    setattr(tokenizer, side, "left")
    tokenizer.save_pretrained(tmp_path)
    assert getattr(unibody.AutoTokenizer.from_pretrained(tmp_path), side) == "left"
    assert getattr(transformers.AutoTokenizer.from_pretrained(tmp_path), side) == "left"


@pytest.mark.parametrize("name", ["smollm2", "llama", "llama3", "minilm"])
@pytest.mark.parametrize("bos", [True, False, None])
@pytest.mark.parametrize("eos", [True, False, None])
def test_asked_to_begin_and_end(
    name: str, bos: bool | None, eos: bool | None, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """`add_bos_token` and `add_eos_token` of a call, and what is saved of them."""
    options = {"add_bos_token": bos, "add_eos_token": eos}
    given = {key: value for key, value in options.items() if value is not None}
    ours = unibody.AutoTokenizer.from_pretrained(folder(name), **given)
    theirs = transformers.AutoTokenizer.from_pretrained(folder(name), **given)
    ours.save_pretrained(tmp_path)
    for tokenizer in (ours, unibody.AutoTokenizer.from_pretrained(tmp_path)):
        assert dict(tokenizer(LINES, return_token_type_ids=True)) == dict(theirs(LINES, return_token_type_ids=True))
        assert tokenizer("who", "came")["input_ids"] == theirs("who", "came")["input_ids"]


def test_told_to_begin_and_end(folder: Callable[[str], Path]) -> None:
    ours, theirs = (lib.AutoTokenizer.from_pretrained(folder("llama3")) for lib in (unibody, transformers))
    for name, value in (("add_eos_token", True), ("add_bos_token", True), ("add_eos_token", False)):
        for tokenizer in (ours, theirs):
            setattr(tokenizer, name, value)
        assert ours(LINES)["input_ids"] == theirs(LINES)["input_ids"]
        assert (ours.add_bos_token, ours.add_eos_token) == (theirs.add_bos_token, theirs.add_eos_token)
    ours.eos_token = None
    with pytest.raises(ValueError, match="add_eos_token=True: this tokenizer has no eos_token"):
        ours.add_eos_token = True
