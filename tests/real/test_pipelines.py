"""Pipelines with a real model and its real tokenizer: SmolLM2-135M-Instruct talks as it does under transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import transformers

import unibody

EXAMPLE = Path(__file__).parents[2] / "examples/smollm2.py"
GREEDY = {"do_sample": False, "max_new_tokens": 12}
PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time, naïve café 日本"]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Is water wet?"}],
    [{"role": "user", "content": "Count to ten."}, {"role": "assistant", "content": "One, two,"}],
]

pytestmark = pytest.mark.slow  # writes a checkpoint of 270 MB and runs it


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    spec = importlib.util.spec_from_file_location("smollm2_for_pipelines", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    folder = tmp_path_factory.mktemp("smollm2")
    example.write_checkpoint(example.find_gguf(), folder)
    transformers.logging.set_verbosity_error()
    theirs = transformers.pipeline("text-generation", model=str(folder), dtype="float32")
    return unibody.pipeline(model=folder, dtype="float32"), theirs


def test_texts(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    expected = theirs(PROMPTS, **GREEDY)
    assert "Paris" in expected[0][0]["generated_text"]
    assert ours(PROMPTS, **GREEDY) == expected
    assert ours(PROMPTS, batch_size=3, **GREEDY) == expected


def test_conversations(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    expected = theirs(CHATS, **GREEDY)
    assert "Paris" in expected[0][0]["generated_text"][-1]["content"]
    assert ours(CHATS, **GREEDY) == expected
    assert list(ours((chat for chat in CHATS), batch_size=3, **GREEDY)) == expected
