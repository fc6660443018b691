"""Checkpoints that transformers 4.57.6 wrote (tests/oracle/record_legacy.py) load and give the values that it computed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unibody

TESTS = Path(__file__).parents[1]
LEGACY = TESTS / "fixtures/legacy"
NAMES = sorted(folder.name for folder in LEGACY.iterdir() if folder.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str) -> None:
    recorded = load_file(LEGACY / name / "values.safetensors")
    model, info = getattr(unibody, name).from_pretrained(LEGACY / name, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        output = model(recorded["input_ids"], recorded["attention_mask"])
    found = output.logits if hasattr(output, "logits") else output.last_hidden_state
    kept = recorded["attention_mask"].bool() if found.ndim == 3 else slice(None)
    torch.testing.assert_close(found[kept], recorded["values"][kept], rtol=0.0, atol=1e-5)


def test_fixtures_are_what_the_script_records() -> None:
    facts = json.loads((LEGACY / "recorded.json").read_text(encoding="utf-8"))
    script = (TESTS / "oracle/record_legacy.py").read_bytes()
    assert facts["transformers"] == "4.57.6"
    assert facts["script_sha256"] == hashlib.sha256(script).hexdigest(), "record again: the script has changed"
