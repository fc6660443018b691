"""The code of docs/deepspeed.md runs, from top to bottom, in a process of its own: it connects itself with others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import ROOT
from tokenization.conftest import minilm

import unibody

TEXTS = ["sir walter elliot of kellynch hall", "in somersetshire was a man who", "for his own amusement never took up"]
PROGRAM = """
import sys

from pages import run

names = run("docs/deepspeed.md", folder="base", texts=sys.argv[1:])
print("shape", names["shape"], "logits", list(names["logits"].shape), "steps", names["trainer"].state.global_step)
"""


@pytest.mark.slow
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
    command = [sys.executable, "-c", PROGRAM, *TEXTS]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"shape [{len(tokenizer)}, 16] logits [1, 4, {len(tokenizer)}] steps 4" in done.stdout
    assert unibody.AutoModelForCausalLM.from_pretrained("tuned").dtype == torch.float32
    assert Path("out", "checkpoint-4", "zero_to_fp32.py").is_file()
