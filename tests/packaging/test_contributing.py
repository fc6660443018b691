"""The worked example in CONTRIBUTING.md compiles, as it stands there, to a model that equals the oracle's."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from pages import blocks

from unibody.generator.commands import generate


def test_worked_example(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (definition,) = blocks((root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert sum(bool(line) for line in definition.splitlines()) <= 30
    (tmp_path / "pyproject.toml").write_text("[tool.unibody]\n", encoding="utf-8")
    models = tmp_path / "modular" / "models"
    models.mkdir(parents=True)
    shutil.copy(root / "modular" / "models" / "modular_llama.py", models)
    (models / "modular_qwen2.py").write_text(definition, encoding="utf-8")
    assert generate([], tmp_path) == 0

    monkeypatch.syspath_prepend(tmp_path / "generated" / "models")
    module = importlib.import_module("modeling_qwen2")

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.Qwen2Config(vocab_size=64, num_hidden_layers=2, **sizes)
    oracle = transformers.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases are zero until they are trained
    oracle.save_pretrained(tmp_path / "checkpoint")
    model = module.Qwen2ForCausalLM.from_pretrained(tmp_path / "checkpoint")
    ids = torch.randint(64, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, oracle(ids).logits, rtol=0, atol=1e-5)
