"""The code of docs/generation.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from generation.conftest import Pair
from oracle.tokenizer import tiny_tokenizer
from pages import run

from unibody.generation.configuration import field_names
from unibody.generation.request import ARGUMENTS

PAGE = (Path(__file__).parents[2] / "docs/generation.md").read_text(encoding="utf-8")


def test_page(
    llama: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("docs/generation.md", folder=llama.written.folder, small=llama.model, tokenizer=tiny_tokenizer())
    assert len(capsys.readouterr().out) > 8, "what the streamer prints"
    assert [tuple(found[name].shape) for name in ("beams", "both", "even")] == [(2, 20), (2, 12), (1, 12)]
    assert (found["even"][0, 4:] % 2 == 0).all()
    config = {"repetition_penalty": 1.1}
    for name in ("faster", "repeated", "whole"):
        assert torch.equal(found[name], llama.ours(found["prompt"], max_new_tokens=16, **config))
    assert torch.equal(found["greedy"], llama.ours(found["prompt"], max_new_tokens=16))
    assert found["config"].min_p == 0.1


def test_the_page_names_every_option() -> None:
    named = set(re.findall(r"[a-z_]+", PAGE))
    assert field_names() | set(ARGUMENTS) <= named | {"bos_token_id", "inputs"}
