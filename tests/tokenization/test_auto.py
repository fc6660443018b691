"""AutoTokenizer: the class that a checkpoint's files name, one that comes with it, one that a user registered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub.conftest import Client, client, hub, plain  # noqa: F401  fixtures
from hub.loopback import Hub

import unibody
from tokenization.conftest import ROOT, Pair, minilm
from unibody.tokenization import auto

EXAMPLE = ROOT / "examples" / "custom_tokenization.py"
TWEET = "@ada wrote https://example.org/x about #OpenSource"
TOKENS = ["<user>", "wrote", "<link>", "about", "open", "source"]


def settings(folder: Path, file: str, **values: Any) -> None:
    (folder / file).write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture
def place(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """tokenizer.json alone."""
    shutil.copy(folder("gpt2") / "vocab.json", tmp_path)
    shutil.copy(folder("gpt2") / "merges.txt", tmp_path)
    unibody.GPT2TokenizerFast.from_pretrained(tmp_path).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize(
    ("own", "model", "expected"),
    [
        ({}, {}, "PreTrainedTokenizerFast"),
        ({"tokenizer_class": "GPT2Tokenizer"}, {}, "GPT2TokenizerFast"),
        ({"tokenizer_class": "GPT2TokenizerFast"}, {}, "GPT2TokenizerFast"),
        ({"tokenizer_class": "TokenizersBackend"}, {"model_type": "gpt2"}, "PreTrainedTokenizerFast"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "llama"}, "PreTrainedTokenizerFast"),
        ({}, {"model_type": "llama"}, "LlamaTokenizerFast"),
        ({}, {"tokenizer_class": "RobertaTokenizer", "model_type": "llama"}, "RobertaTokenizerFast"),
        ({"tokenizer_class": "CodeGenTokenizer"}, {"model_type": "codegen"}, "PreTrainedTokenizerFast"),
    ],
)
def test_found(own: dict[str, Any], model: dict[str, Any], expected: str, place: Path) -> None:
    settings(place, "tokenizer_config.json", **own)
    settings(place, "config.json", **model)
    tokenizer = unibody.AutoTokenizer.from_pretrained(place)
    assert type(tokenizer).__name__ == expected
    assert tokenizer("Sir Walter")["input_ids"]


def test_in_python_and_fast(pair: Callable[[str], Pair]) -> None:
    assert type(unibody.AutoTokenizer.from_pretrained(minilm())) is unibody.BertTokenizerFast
    assert type(unibody.AutoTokenizer.from_pretrained(minilm(), use_fast=False)) is unibody.BertTokenizer
    assert isinstance(pair("bert").ours, unibody.PreTrainedTokenizer)
    assert isinstance(pair("bert").ours, unibody.PreTrainedTokenizerBase)


def test_not_found(tmp_path: Path) -> None:
    for own, message in (
        ({}, "names no tokenizer, and has no tokenizer.json: known are BertTokenizer, "),
        ({"tokenizer_class": "TekkenTokenizer"}, "names the tokenizer TekkenTokenizer, and has no tokenizer.json"),
    ):
        settings(tmp_path, "tokenizer_config.json", **own)
        with pytest.raises(ValueError, match=message):
            unibody.AutoTokenizer.from_pretrained(tmp_path)
    settings(tmp_path, "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json, which LlamaTokenizerFast reads"):
        unibody.AutoTokenizer.from_pretrained(tmp_path)


def test_registered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_registered", {})

    class MineConfig:
        model_type = "mine"

    class MineTokenizerFast(unibody.PreTrainedTokenizerFast):
        pass

    unibody.AutoTokenizer.register(MineConfig, fast_tokenizer_class=MineTokenizerFast)
    settings(place, "config.json", model_type="mine")
    assert type(unibody.AutoTokenizer.from_pretrained(place)) is MineTokenizerFast
    settings(place, "tokenizer_config.json", tokenizer_class="MineTokenizer")
    settings(place, "config.json", model_type="llama")
    assert type(unibody.AutoTokenizer.from_pretrained(place)) is MineTokenizerFast
    with pytest.raises(ValueError, match="mine has a tokenizer already: pass exist_ok=True"):
        unibody.AutoTokenizer.register(MineConfig, fast_tokenizer_class=MineTokenizerFast)
    unibody.AutoTokenizer.register(MineConfig, MineTokenizerFast, exist_ok=True)
    assert auto._registered["mine"] == (None, MineTokenizerFast)
    unibody.AutoTokenizer.register(
        MineConfig, unibody.BertTokenizer, fast_tokenizer_class=MineTokenizerFast, exist_ok=True
    )
    assert auto._registered["mine"] == (unibody.BertTokenizer, MineTokenizerFast)
    with pytest.raises(TypeError, match="register takes classes that inherit from PreTrainedTokenizer"):
        unibody.AutoTokenizer.register(MineConfig, str)


@pytest.fixture(scope="module")
def tweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example writes: a tokenizer with its code."""
    folder = tmp_path_factory.mktemp("tweets")
    done = subprocess.run([sys.executable, str(EXAMPLE), str(minilm()), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(TOKENS)
    return folder


def test_one_that_comes_with_its_code(tweets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    assert (tweets / EXAMPLE.name).read_bytes() == EXAMPLE.read_bytes()
    with pytest.raises(
        unibody.UntrustedCodeError, match=r": TweetTokenizer of custom_tokenization\.py, at /.*trust_remote_code=True"
    ):
        unibody.AutoTokenizer.from_pretrained(tweets)
    assert not any(tmp_path.iterdir())
    tokenizer = unibody.AutoTokenizer.from_pretrained(tweets, trust_remote_code=True)
    assert type(tokenizer).__name__ == "TweetTokenizer"
    assert isinstance(tokenizer, unibody.BertTokenizer)
    assert tokenizer.tokenize(TWEET) == TOKENS
    whole = unibody.AutoTokenizer.from_pretrained(tweets, trust_remote_code=True, split_hashtags=False)
    assert whole.tokenize(TWEET)[4:] == ["#", "opens", "##our", "##ce"]
    text = tokenizer.decode(tokenizer(TWEET)["input_ids"], skip_special_tokens=True)
    assert text == "wrote about open source"


def test_over_the_hub(tweets: Path, hub: Hub, client: Client) -> None:  # noqa: F811
    """Pushed as an object with its card, pulled by name; private ones need the token, which nothing shows."""
    found = client(
        f"""
import os
tokenizer = unibody.AutoTokenizer.from_pretrained({str(tweets)!r}, trust_remote_code=True)
type(tokenizer).register_for_auto_class()
tokenizer.push_to_hub("alice/tweets", private=True, commit_message="The tokenizer")
answers["refused"] = error(lambda: unibody.AutoTokenizer.from_pretrained("alice/tweets"))
again = unibody.AutoTokenizer.from_pretrained("alice/tweets", trust_remote_code=True, revision="main")
answers["tokens"] = again.tokenize({TWEET!r})
answers["missing"] = error(lambda: unibody.AutoTokenizer.from_pretrained("alice/tweets", token=False, cache_dir="elsewhere"))
answers["files"] = sorted(os.listdir(Path(unibody.cached_file("alice/tweets", "vocab.txt")).parent))
"""
    )
    assert found["tokens"] == TOKENS
    assert found["refused"].startswith("UntrustedCodeError: alice/tweets brings code of its own")
    assert "HubError" in found["missing"]
    assert {"vocab.txt", "tokenizer_config.json", "custom_tokenization.py"} <= set(found["files"])
    repository = hub.repositories["alice/tweets"]
    card = repository.commits[repository.refs["main"]]["README.md"].decode()
    assert 'tokenizer = unibody.AutoTokenizer.from_pretrained("alice/tweets")' in card
