"""What `generate` refuses, and in which words."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from generation.conftest import Pair
from oracle.inputs import token_ids
from oracle.tokenizer import tiny_tokenizer

import unibody

IDS = token_ids(2, 5)
REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_new_token": 3}, "generate has no option 'max_new_token': did you mean max_new_tokens?"),
    ({"attention_masks": 3}, "generate has no option 'attention_masks': did you mean attention_mask?"),
    ({"colour": 3}, "generate has no option 'colour': docs/generation.md lists them"),
    ({"temperature": 0}, "temperature=0: expected a number above 0; for the likeliest token, do_sample=False"),
    ({"top_k": -1}, "top_k=-1: expected a number of tokens, 0 or more"),
    ({"top_p": 1.5}, "top_p=1.5: expected within 0 and 1"),
    ({"min_p": "much"}, "min_p='much': expected within 0 and 1"),
    ({"repetition_penalty": 0}, "repetition_penalty=0: expected a number above 0"),
    ({"max_new_tokens": 0}, "max_new_tokens=0: expected a whole number above 0"),
    ({"num_beams": True}, "num_beams=True: expected a whole number above 0"),
    ({"do_sample": 1}, "do_sample=1: expected True or False"),
    ({"early_stopping": "soon"}, "early_stopping='soon': expected True, False or 'never'"),
    ({"eos_token_id": -5}, "eos_token_id=-5: expected a token's id, or a list of such"),
    ({"bad_words_ids": [[]]}, "bad_words_ids=[[]]: expected a list of lists of tokens' ids, none of them empty"),
    ({"bad_words_ids": [[5, 500]]}, "tokens [500] of bad_words_ids or sequence_bias: the vocabulary has 128"),
    ({"sequence_bias": {}}, "sequence_bias=[]: expected a list of [tokens' ids, bias], none of them empty"),
    ({"stop_strings": [""]}, "stop_strings=['']: expected a text, or a list of texts, none of them empty"),
    ({"stop_strings": "x"}, "stop_strings='x' needs the tokenizer: generate(…, tokenizer=…)"),
    (
        {"exponential_decay_length_penalty": (2,)},
        "exponential_decay_length_penalty=(2,): expected [new tokens before it starts, factor per token]",
    ),
    ({"guidance_scale": 1.5}, "guidance_scale=1.5 is not supported: set it to 1"),
    ({"output_attentions": True}, "output_attentions=True is not supported: set it to False"),
    (
        {"cache_implementation": "quantized"},
        "cache_implementation='quantized': expected one of dynamic, static, hybrid, sliding_window, hybrid_chunked",
    ),
    (
        {"max_length": 5},
        "max_length=5 leaves no room after a prompt of 5 tokens: raise it, or set max_new_tokens",
    ),
    (
        {"num_return_sequences": 2},
        "num_return_sequences=2 would be the same text each time: set do_sample=True, or num_beams=2",
    ),
    (
        {"num_beams": 2, "num_return_sequences": 3},
        "num_return_sequences=3 is more than num_beams=2: a prompt gives as many texts as it has beams",
    ),
    (
        {"attention_mask": torch.ones(2, 4)},
        "attention_mask is [2, 4], expected that of the prompts, [2, 5]",
    ),
    ({"input_ids": IDS}, "inputs and input_ids are two names of the prompt: give one"),
    ({"num_beams": 2, "streamer": unibody.BaseStreamer()}, "a streamer needs num_beams=1: beams are not texts before the end"),
    (
        {"prompt_lookup_num_tokens": 2},
        "assisted decoding continues one text, and there are 2: one at a time",
    ),
    (
        {"prefix_allowed_tokens_fn": lambda row, ids: []},
        "prefix_allowed_tokens_fn allows no token for prompt 0 after [47, 117, 61, 13, 91]: name at least the end of the text",
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"), REFUSED, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_refused(llama: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        llama.model.generate(IDS, **options)


PROMPTS = (
    (
        torch.zeros(1, 0, dtype=torch.long),
        "the prompt has no tokens: give at least one, such as the token that begins a text",
    ),
    (
        torch.zeros(3, dtype=torch.long),
        "the prompt is torch.int64 [3], expected a tensor of tokens' ids [batch, tokens]",
    ),
    (torch.zeros(1, 3), "the prompt is torch.float32 [1, 3], expected a tensor of tokens' ids [batch, tokens]"),
    ([[1, 2]], "the prompt is list, expected a tensor of tokens' ids [batch, tokens]"),
    (torch.tensor([[5, 128]]), "token 128 of the prompt: the model has 128, counted from 0"),
    (torch.tensor([[5, -3]]), "token -3 of the prompt: the model has 128, counted from 0"),
    ("text", "the prompt is str, expected a tensor of tokens' ids [batch, tokens]"),
)


@pytest.mark.parametrize(
    ("prompt", "message"), PROMPTS, ids=["empty", "flat", "floats", "list", "large", "negative", "text"]
)
def test_prompts(llama: Pair, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        llama.model.generate(prompt)


def test_no_prompt(pair: Any) -> None:
    model = unibody.LlamaForCausalLM(unibody.LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, bos_token_id=None
    ))  # fmt: skip
    message = r"^generate needs a prompt, input_ids=…: the model has no bos_token_id to begin with$"
    with pytest.raises(ValueError, match=message):
        model.generate()


def test_a_mask_in_the_place_of_the_configuration(llama: Pair) -> None:
    message = r"^generation_config is a Tensor, expected a GenerationConfig; a mask is given as attention_mask=$"
    with pytest.raises(TypeError, match=message):
        llama.model.generate(IDS, torch.ones_like(IDS))


def test_a_cache_of_more_than_the_prompt(llama: Pair) -> None:
    past = llama.model(IDS).past_key_values
    message = (
        r"^past_key_values holds 5 tokens and the prompt has 5: give the whole text, at least one token of it new$"
    )
    with pytest.raises(ValueError, match=message):
        llama.model.generate(IDS, past_key_values=past)


def test_another_vocabulary(llama: Pair) -> None:
    other = unibody.LlamaForCausalLM(
        unibody.LlamaConfig(
            vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    )
    message = r"^assistant_model has 64 tokens and the model 128: they must be the same tokens$"
    with pytest.raises(ValueError, match=message):
        llama.model.generate(IDS[:1], assistant_model=other)
    with pytest.raises(ValueError, match=r"^assisted decoding needs use_cache=True$"):
        llama.model.generate(IDS[:1], assistant_model=llama.model, use_cache=False)


def test_a_stream_of_beams(llama: Pair) -> None:
    with pytest.raises(ValueError, match=r"^stream needs num_beams=1: beams are not texts before the end$"):
        llama.model.stream(IDS, num_beams=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "temperature=0.5 has no effect without do_sample=True"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 has no effect without num_beams above 1"),
        ({"output_scores": True}, "output_scores=True has no effect without return_dict_in_generate=True"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 2)}, "a prompt ends with padding: pad on the left, or the text goes on from it"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_warned(llama: Pair, caplog: pytest.LogCaptureFixture, options: dict[str, Any], message: str) -> None:
    """What is without effect in a call; not what the model's own configuration says."""
    with caplog.at_level(logging.WARNING, "unibody"):
        llama.model.generate(IDS, max_new_tokens=1, **options)
        assert [record.message for record in caplog.records] == [message]
        caplog.clear()
        if "attention_mask" not in options:
            llama.model.generate(IDS, unibody.GenerationConfig(max_new_tokens=1, **options))
            assert caplog.records == []


def test_strict() -> None:
    config = unibody.GenerationConfig(top_p=0.5, early_stopping=True)
    config.validate()
    with pytest.raises(
        ValueError, match=r"^top_p=0.5 has no effect without do_sample=True; early_stopping=True has no effect"
    ):
        config.validate(strict=True)
    unibody.GenerationConfig(top_p=0.5, early_stopping=True, do_sample=True, num_beams=2).validate(strict=True)


def test_tokenizer_of_another_kind(llama: Pair) -> None:
    """A plain tokenizer of the tokenizers library serves for stop strings."""
    found = llama.model.generate(IDS[:1], stop_strings="zz", tokenizer=tiny_tokenizer(), max_new_tokens=2)
    assert found.shape == (1, 7)
