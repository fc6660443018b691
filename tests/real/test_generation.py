"""Generation with real weights: texts, not noise, and transformers' tokens in each way of decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from real.test_smollm2 import CHAT, PROMPT, folder, oracle, tokenizer  # noqa: F401  its fixtures
from tokenizers import Tokenizer

import unibody

pytestmark = pytest.mark.slow
OPTIONS: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 4, "num_return_sequences": 2, "no_repeat_ngram_size": 3, "length_penalty": 0.8},
    "penalties": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    "sampling": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "min_p": 0.02},
    "stop strings": {"stop_strings": [" Europe", ".\n"]},
}


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:  # noqa: F811
    return unibody.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_ways_of_decoding(model: Any, oracle: Any, tokenizer: Tokenizer, options: dict[str, Any]) -> None:  # noqa: F811
    from transformers import PreTrainedTokenizerFast

    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    theirs = {"tokenizer": PreTrainedTokenizerFast(tokenizer_object=tokenizer)} if "stop_strings" in options else {}
    ours = {"tokenizer": tokenizer} if theirs else {}
    torch.manual_seed(0)
    expected = oracle.generate(ids, max_new_tokens=24, **options, **theirs)
    torch.manual_seed(0)
    assert torch.equal(model.generate(ids, max_new_tokens=24, **options, **ours), expected)


def test_a_text_that_repeats_itself_is_looked_up(model: Any, tokenizer: Tokenizer) -> None:  # noqa: F811
    """Half the passes at most, where the model copies from the prompt; the end that generation_config.json names ends the text."""
    request = "Repeat this sentence word for word: The quick brown fox jumps over the lazy dog near the river bank."
    ids = torch.tensor([tokenizer.encode(CHAT.replace("What is the capital of France?", request)).ids])
    plain = model.generate(ids, max_new_tokens=40)
    assert plain.shape[1] < ids.shape[1] + 40
    passes: list[int] = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    try:
        assert torch.equal(model.generate(ids, max_new_tokens=40, prompt_lookup_num_tokens=8), plain)
    finally:
        hook.remove()
    assert len(passes) <= (plain.shape[1] - ids.shape[1]) / 2
    assert "quick brown fox" in tokenizer.decode(plain[0, ids.shape[1] :].tolist())
