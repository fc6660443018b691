"""The code of docs/tokenizers.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tokenization.conftest import ROOT, minilm


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"folder": str(minilm())}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), "docs/tokenizers.md", "exec"), names)
    assert names["texts"] == ["sir walter elliot", "of kellynch hall, in somersetshire"]
    assert names["batch"]["input_ids"].shape[0] == 2
    assert names["word"] == "who"
    assert names["found"].tokens()[names["place"]] == "own"
    assert len(names["found"]["input_ids"]) > 1
    assert names["prompt"] == "<user>Who lives at Kellynch Hall?\n<assistant>"
    assert names["inputs"]["input_ids"].shape[0] == 1
    assert names["same"] is True
    assert (tmp_path / "mine" / "tokenizer.json").is_file()
