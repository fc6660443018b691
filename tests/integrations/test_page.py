"""The code of docs/adapters.md and docs/export.md runs, from top to bottom; so does the example that fine-tunes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from gguf import GGUFReader
from integrations.packed import plain_model
from integrations.test_gguf import TEXT, sized_model, write_tokenizer
from oracle.inputs import token_ids
from pages import ROOT, run

import unibody


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain_model().save_pretrained(tmp_path)
    names = run("docs/adapters.md", folder=str(tmp_path), ids=token_ids(2, 12))
    assert names["trained"] == 2 * 2 * 8 * (128 + 128)
    assert names["active"] == ["letters"]
    assert {file.name for file in (tmp_path / "letters").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not any("lora" in name for name, _ in names["merged"].named_modules())
    assert names["losses"] == sorted(names["losses"], reverse=True)
    assert names["tokens"].shape == (1, 16)
    assert type(names["model"].model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(names["model"].lm_head) is torch.nn.Linear


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning")
def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sized_model().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = run("docs/export.md", folder=str(tmp_path), ids=token_ids(2, 12))
    assert torch.equal(names["tokens"], names["model"].generate(names["ids"], max_new_tokens=4, eos_token_id=[]))
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    assert session.get_inputs()[1].name == "keys.0"
    assert GGUFReader(tmp_path / "model.gguf").fields["general.architecture"].contents() == "llama"


@pytest.mark.slow
def test_finetune(tmp_path: Path) -> None:
    """Three steps on a tiny model: a log, a picture, and an adapter that fits."""
    sized_model().save_pretrained(tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    (tmp_path / "text.txt").write_text(TEXT.read_text(encoding="utf-8")[:12000], encoding="utf-8")
    files = ["base", "text.txt", "adapter", "--steps", "3", "--log", "log.jsonl", "--plot", "loss.svg"]
    command = [sys.executable, "-W", "ignore", str(ROOT / "examples/finetune.py"), *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [sorted(record) for record in records[::4]] == [["perplexity", "step"]] * 2
    assert records[-1]["perplexity"] < records[0]["perplexity"]
    assert (tmp_path / "loss.svg").read_text().startswith("<svg")
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.load_adapter(tmp_path / "adapter") == ([], [])
