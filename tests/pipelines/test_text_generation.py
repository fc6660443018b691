"""text-generation, plain and in conversations, is transformers' token for token; also with its model under our pipeline."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from oracle.pipelines import assert_same

import unibody
from pipelines.conftest import Pair

GREEDY = {"do_sample": False, "max_new_tokens": 8}
TEXTS = ["the cat", "a", "hello world, how are you", "bad bed . 's"]
CHAT = [{"role": "user", "content": "hi"}]
BEGUN = [*CHAT, {"role": "assistant", "content": "yo"}]
Pairs = Callable[[str, str], Pair]


@pytest.fixture(scope="module")
def both(pair: Pairs) -> Pair:
    return pair("text-generation", "llama")


@pytest.fixture
def same_model(both: Pair) -> Pair:
    """transformers' model and tokenizer in both pipelines: what their `generate` can, ours hands on."""
    return Pair(unibody.TextGenerationPipeline(both.theirs.model, both.theirs.tokenizer), both.theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_full_text": False},
        {"return_tensors": True},
        {"prefix": "PRE "},
        {"stop_sequence": "E"},
        {"skip_special_tokens": False},
        {"add_special_tokens": True},
        {"clean_up_tokenization_spaces": True},
        {"clean_up_tokenization_spaces": False},
        {"tokenizer_encode_kwargs": {"truncation": True, "max_length": 4}},
    ],
    ids=str,
)
def test_texts(both: Pair, options: dict[str, Any]) -> None:
    for inputs in (TEXTS[0], TEXTS[:1], TEXTS):
        assert_same(both.ours(inputs, **GREEDY, **options), both.theirs(inputs, **GREEDY, **options))


def test_stop_sequence(both: Pair) -> None:
    """A sequence of one token ends the text, there and here."""
    whole = both.ours(TEXTS[0], return_full_text=False, **GREEDY)[0]["generated_text"]
    stopped = both.ours(TEXTS[0], return_full_text=False, stop_sequence=whole[3], **GREEDY)
    assert_same(stopped, both.theirs(TEXTS[0], return_full_text=False, stop_sequence=whole[3], **GREEDY))
    assert stopped[0]["generated_text"] == whole[: whole.index(whole[3]) + 1]


def test_empty_text(both: Pair) -> None:
    """It begins with the token that begins texts."""
    assert_same(both.ours("", **GREEDY), both.theirs("", **GREEDY))


def test_batches_are_padded_on_the_left(both: Pair) -> None:
    alone = [both.theirs(text, **GREEDY) for text in TEXTS]
    assert both.ours.tokenizer.padding_side == "right"
    for size in (2, 3, 9):
        assert both.ours(TEXTS, batch_size=size, **GREEDY) == alone
    tensors = both.ours(TEXTS, batch_size=4, return_tensors=True, **GREEDY)
    assert tensors == [both.theirs(text, return_tensors=True, **GREEDY) for text in TEXTS]


@pytest.mark.parametrize(
    "options", [{}, {"return_full_text": False}, {"continue_final_message": False}, {"batch_size": 2}], ids=str
)
def test_conversations(both: Pair, options: dict[str, Any]) -> None:
    """A list of messages is one input; the caller's own list is not touched."""
    before = copy.deepcopy(BEGUN)
    for inputs in (CHAT, BEGUN, [CHAT, BEGUN], [CHAT]):
        assert_same(both.ours(inputs, **GREEDY, **options), both.theirs(inputs, **GREEDY, **options))
    assert before == BEGUN
    lazy = both.ours((chat for chat in (CHAT, BEGUN)), **GREEDY, **options)
    assert isinstance(lazy, Iterator)
    assert_same(list(lazy), both.theirs([CHAT, BEGUN], **GREEDY, **options))


def test_too_long(both: Pair) -> None:
    """With "hole" the beginning of the prompt goes; without room for any of it, an error."""
    pair = Pair(copy.copy(both.ours), copy.copy(both.theirs))
    for pipe in pair:
        pipe.tokenizer = copy.deepcopy(pipe.tokenizer)
        pipe.tokenizer.model_max_length = 20
    text = "the cat sat on the mat"
    expected = pair.theirs(text, handle_long_generation="hole", **GREEDY)
    assert_same(pair.ours(text, handle_long_generation="hole", **GREEDY), expected)
    assert expected != pair.theirs(text, **GREEDY)
    always = unibody.TextGenerationPipeline(pair.ours.model, pair.ours.tokenizer, handle_long_generation="hole")
    assert_same(always(text, **GREEDY), expected)
    with pytest.raises(ValueError, match="20 new tokens leave no room for a prompt: the model reads 20 in all"):
        pair.ours(text, handle_long_generation="hole", max_new_tokens=20)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"stop_strings": ["E ", "V"]},
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_options_of_generate_pass_through(same_model: Pair, options: dict[str, Any]) -> None:
    theirs = {**options, **({"tokenizer": same_model.theirs.tokenizer} if "stop_strings" in options else {})}
    for inputs in (TEXTS[0], TEXTS):
        assert_same(same_model.ours(inputs, **GREEDY, **options), same_model.theirs(inputs, **GREEDY, **theirs))
    several = same_model.ours(TEXTS, batch_size=4, **GREEDY, **options)
    assert several == [same_model.ours(text, **GREEDY, **options) for text in TEXTS]


def test_stop_strings_of_the_checkpoint(same_model: Pair) -> None:
    """They need the tokenizer, and get it."""
    model = copy.deepcopy(same_model.ours.model)
    model.generation_config.stop_strings = ["V"]
    said = unibody.TextGenerationPipeline(model, same_model.ours.tokenizer)(TEXTS[0], **GREEDY)
    assert said == same_model.ours(TEXTS[0], stop_strings=["V"], **GREEDY) != same_model.ours(TEXTS[0], **GREEDY)


def test_lengths(same_model: Pair) -> None:
    """max_length counts the prompt; truncation uses it too."""
    greedy = {"do_sample": False}
    assert_same(
        same_model.ours("the cat", max_length=12, **greedy), same_model.theirs("the cat", max_length=12, **greedy)
    )
    options = {"truncation": True, "padding": "max_length", "max_length": 10, "max_new_tokens": 3, **greedy}
    assert_same(same_model.ours("the cat", **options), same_model.theirs("the cat", **options))


def test_what_is_drawn(same_model: Pair) -> None:
    """Without options 256 tokens at temperature 0.7, unless the checkpoint says otherwise."""
    torch.manual_seed(3)
    ours = same_model.ours("the cat")
    torch.manual_seed(3)
    assert ours == same_model.theirs("the cat")
    for changes in ({"max_new_tokens": 5}, {"max_length": 12}, {"max_new_tokens": 5, "do_sample": False}):
        given = {"generation_config": transformers.GenerationConfig(**changes)}
        torch.manual_seed(3)
        ours = same_model.ours("the cat", **given)
        torch.manual_seed(3)
        assert ours == same_model.theirs("the cat", **given)
    model = copy.deepcopy(same_model.ours.model)
    model.generation_config.update(do_sample=False, max_new_tokens=5)
    said = unibody.TextGenerationPipeline(model, same_model.ours.tokenizer)("the cat")
    assert said == same_model.theirs("the cat", do_sample=False, max_new_tokens=5)


def test_streamer(both: Pair) -> None:
    """It gets the tokens while they are made."""

    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []
            self.ended = False

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.ended = True

    streamer = Streamer()
    answer = both.ours(TEXTS[0], return_tensors=True, streamer=streamer, **GREEDY)[0]["generated_token_ids"]
    assert streamer.tokens[-8:] == answer[-8:]
    assert streamer.ended


def test_template_of_tools(both: Pair) -> None:
    """Tools and documents reach the template."""
    ours = copy.copy(both.ours)
    ours.tokenizer = copy.deepcopy(ours.tokenizer)
    ours.tokenizer.chat_template = (
        "{{ tools[0].function.name }} {{ documents[0].title }} {% for m in messages %}{{ m.content }}{% endfor %}"
    )
    tool = {"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}
    answer = ours(CHAT, tools=[tool], documents=[{"title": "one"}], return_tensors=True, **GREEDY)
    assert ours.tokenizer.decode(answer[0]["generated_token_ids"]).startswith("look one hi")


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([{"role": "user"}], "message 0 is not a dictionary with 'role' and 'content', but has ['role']"),
        (
            [{"role": "user", "content": "a"}, "b"],
            "message 1 is not a dictionary with 'role' and 'content', but has str",
        ),
        (None, "text-generation reads a text or a list of messages (str), not NoneType"),
        (b"text", "text-generation reads a text or a list of messages (str), not bytes: decode it first"),
        (["a", 5], "text-generation reads a text or a list of messages (str), not int"),
        ([], "text-generation: the list of inputs is empty: give at least one"),
    ],
    ids=str,
)
def test_bad_input(both: Pair, inputs: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        both.ours(inputs, **GREEDY)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "options, message",
    [
        ({"return_tensors": True, "return_full_text": True}, "return_full_text is about text"),
        ({"handle_long_generation": "cut"}, "handle_long_generation 'cut' is neither None nor 'hole'"),
        ({"batch_size": 0}, "batch_size 0 is not at least 1"),
        ({"max_new_tokns": 5}, "max_new_tokns"),
    ],
    ids=str,
)
def test_bad_options(both: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        both.ours("a", **options)
