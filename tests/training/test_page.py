"""The code of docs/training.md runs, from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pages import run
from tokenization.conftest import minilm

import unibody

TEXTS = [
    "sir walter elliot of kellynch hall",
    "in somersetshire was a man who",
    "for his own amusement never took up",
    "any book",
] * 4


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tokenizer = unibody.AutoTokenizer.from_pretrained(str(minilm()))
    config = unibody.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unibody.LlamaForCausalLM(config).save_pretrained("base")
    tokenizer.save_pretrained("base")
    names = run("docs/training.md", folder="base", texts=TEXTS)
    assert names["after"] < names["before"]
    assert type(names["again"]).__name__ == "LlamaForCausalLM"
    assert names["steps"] == 3
    assert list(names["losses"]) == [2, 4, 6, 8]
    assert unibody.AutoTokenizer.from_pretrained("tuned").pad_token_id == tokenizer.pad_token_id
