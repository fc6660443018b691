"""`unibody run` generates as the library does, with what generation_config.json says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle.reference import save
from oracle.tokenizer import tiny_tokenizer
from oracle.zoo import first_case

import unibody
from unibody.running import run

PROMPT = "a lazy dog"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(first_case(), "unit", tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ends and stop strings of the file count; beams, which cannot be written as they come, do not."""
    tokenizer, model = tiny_tokenizer(), unibody.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    texts = []
    for values in ({}, {"repetition_penalty": 3.0}, {"stop_strings": "zz"}):
        unibody.GenerationConfig(num_beams=3, num_return_sequences=2, **values).save_pretrained(folder)
        assert run(str(folder), PROMPT, {"max_new_tokens": 16}) == 0
        texts.append(capsys.readouterr().out)
        plain = model.generate(ids, max_new_tokens=16, tokenizer=tokenizer, **values)
        assert texts[-1].rstrip("\n") == tokenizer.decode(plain[0].tolist())[len(PROMPT) :].rstrip("\ufffd\n")
    assert texts[0] != texts[1]


def test_what_cannot_be_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder), PROMPT, {"max_new_tokens": 4, "top_p": 3.0}) == 1
    assert capsys.readouterr().err == "error: top_p=3.0: expected within 0 and 1\n"
