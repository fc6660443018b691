"""Streamers: the oracle's pieces of text; tokens as they come."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
import torch
import transformers
from generation.conftest import Pair
from oracle.inputs import token_ids
from oracle.tokenizer import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

import unibody

FAST = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer())
TEXTS = (
    "a héllo lazy dog",
    "one two  three ",
    "中文 text 你好吗",
    "line\nnext line\n\nlast",
    "",
    "é",
    " lead",
    "日本のa b",
)


def byte_tokenizer() -> Any:
    """One token per byte: characters of several bytes are incomplete for a while."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def pieces(streamer: Any, prompt: list[int], ids: list[int]) -> list[tuple[str, bool]]:
    """What it is told is finished."""
    found: list[tuple[str, bool]] = []
    streamer.on_finalized_text = lambda text, stream_end=False: found.append((text, stream_end))
    streamer.put(torch.tensor([prompt]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("skip", [False, True])
def test_pieces(text: str, skip: bool) -> None:
    tokenizer = byte_tokenizer()
    prompt, ids = tokenizer.encode("the prompt "), tokenizer.encode(text)
    ours = pieces(unibody.TextStreamer(tokenizer, skip_prompt=skip), prompt, ids)
    assert ours == pieces(transformers.TextStreamer(tokenizer, skip_prompt=skip), prompt, ids)
    assert "".join(piece for piece, _ in ours) == ("" if skip else "the prompt ") + text


def test_printed(llama: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on the screen, twice with one streamer."""
    for skip in (False, True):
        ours, theirs = (
            lib.TextStreamer(FAST, skip_prompt=skip, skip_special_tokens=True) for lib in (unibody, transformers)
        )
        for _ in range(2):
            llama.theirs(token_ids(1, 9), max_new_tokens=20, streamer=theirs)
            expected = capsys.readouterr().out
            llama.ours(token_ids(1, 9), max_new_tokens=20, streamer=ours)
            assert capsys.readouterr().out == expected
            assert len(expected) > 15


def test_iterator(llama: Pair) -> None:
    streamer = unibody.TextIteratorStreamer(FAST, skip_prompt=True, timeout=60)
    options = {"max_new_tokens": 20, "streamer": streamer}
    thread = threading.Thread(target=llama.model.generate, args=(token_ids(1, 9),), kwargs=options)
    thread.start()
    found = list(streamer)
    thread.join()
    assert "".join(found) == FAST.decode(llama.ours(token_ids(1, 9), max_new_tokens=20)[0, 9:])
    assert len(found) > 2
    with pytest.raises(queue.Empty):
        next(unibody.TextIteratorStreamer(FAST, timeout=0.01))


def test_the_end_comes_even_if_generation_fails(llama: Pair) -> None:
    """Or whoever iterates would wait for ever."""

    def fail(ids: Tensor, scores: Tensor) -> Tensor:
        raise RuntimeError("the user's processor fails")

    streamer = unibody.TextIteratorStreamer(FAST, skip_prompt=True, timeout=5)
    with pytest.raises(RuntimeError, match="the user's processor fails"):
        llama.ours(token_ids(1, 9), max_new_tokens=2, streamer=streamer, logits_processor=[fail])
    assert list(streamer) == [""]


def test_one_text(llama: Pair) -> None:
    message = r"^TextStreamer writes one text, and there are 2: generate one at a time$"
    with pytest.raises(ValueError, match=message):
        llama.ours(token_ids(2, 9), max_new_tokens=2, streamer=unibody.TextStreamer(FAST))


class Listener(unibody.BaseStreamer):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def put(self, value: Tensor) -> None:
        self.heard.append(value.flatten().tolist())

    def end(self) -> None:
        self.heard.append("end")


@pytest.mark.parametrize("draft", [{}, {"prompt_lookup_num_tokens": 3}], ids=["plain", "assisted"])
def test_what_a_streamer_hears(llama: Pair, draft: dict[str, Any]) -> None:
    """What the oracle's hears: the prompt, each token, the end."""
    ours, theirs = Listener(), Listener()
    llama.ours(token_ids(1, 9), max_new_tokens=6, streamer=ours, **draft)
    llama.theirs(token_ids(1, 9), max_new_tokens=6, streamer=theirs, **draft)
    assert ours.heard == theirs.heard
    assert len(ours.heard) == 8


@pytest.mark.parametrize("draft", [{}, {"prompt_lookup_num_tokens": 3}], ids=["plain", "assisted"])
def test_stream(llama: Pair, draft: dict[str, Any]) -> None:
    """The tokens of `generate`, none computed before it is asked for."""
    options = {"max_new_tokens": 12, "repetition_penalty": 1.2, **draft}
    whole = llama.ours(token_ids(1, 9), **options)
    passes: list[int] = []
    hook = llama.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        stream = llama.model.stream(token_ids(1, 9), **options)
        assert passes == []
        first = next(stream)
        assert passes == [1]
        assert torch.equal(torch.cat([first, *stream]), whole[0, 9:])
    finally:
        hook.remove()
    assert torch.is_grad_enabled()
