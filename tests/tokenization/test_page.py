"""The code of docs/tokenizers.md runs, from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import run

from tokenization.conftest import minilm


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("docs/tokenizers.md", folder=str(minilm()))
    assert names["texts"] == ["sir walter elliot", "of kellynch hall, in somersetshire"]
    assert names["batch"]["input_ids"].shape[0] == 2
    assert names["word"] == "who"
    assert names["found"].tokens()[names["place"]] == "own"
    assert len(names["found"]["input_ids"]) > 1
    assert names["prompt"] == "<user>Who lives at Kellynch Hall?\n<assistant>"
    assert names["inputs"]["input_ids"].shape[0] == 1
    assert names["same"] is True
    assert (tmp_path / "mine" / "tokenizer.json").is_file()
