"""A generated file, copied alone into an empty folder, works where nothing of this project can be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracle.inputs import FIRST_ORDINARY_TOKEN
from oracle.tokenizer import tiny_tokenizer
from oracle.zoo import cases, generated_files

# Found as `sitecustomize` by every Python process that has its folder on the path.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        other = name.startswith(("modeling_", "quantizer_")) and name != {own!r}
        if name.partition(".")[0] in {blocked} or other:
            raise ImportError(f"{{name}} is blocked in this process")

sys.meta_path.insert(0, Blocker())
"""
PREDICTORS = (*cases("AutoModelForCausalLM"), *cases("AutoModelForMaskedLM"))
PROJECT = ("unibody", "generator", "generated", "modular", "templates", "transformers")

USE = """
import importlib, json, sys

for blocked in ("unibody", "transformers", "generated", "modeling_other"):
    try:
        importlib.import_module(blocked)
    except ImportError as error:
        assert "is blocked" in str(error), error
    else:
        raise AssertionError(f"{blocked} can be imported: the test would prove nothing")

module = importlib.import_module(sys.argv[1])
import torch

torch.manual_seed(0)
config = getattr(module, sys.argv[2]).from_dict(json.loads(sys.argv[4]))
model = getattr(module, sys.argv[3])(config).eval()
model.save_pretrained("saved")
again = type(model).from_pretrained("saved")
ids = torch.tensor([[5, 6, 7]])
with torch.no_grad():
    assert torch.equal(again(ids).logits, model(ids).logits)
length = 3
if hasattr(model, "generate"):
    tokens = model.generate(ids, max_new_tokens=4, min_new_tokens=4)
    assert torch.equal(again.generate(ids, max_new_tokens=4, min_new_tokens=4), tokens)
    length = tokens.shape[1]
print(length)
"""


def files(auto_class: str) -> list[Path]:
    """The generated files that have a class for that auto class."""
    found = {case.module.__file__ for case in cases(auto_class)}
    return [file for file in generated_files() if str(file) in found]


def run_alone(folder: Path, own: str, blocked: tuple[str, ...], *arguments: str) -> str:
    """Standard output of `python *arguments` in `folder`, where `blocked` packages cannot be imported.

    Nor can another generated file than `own`.
    """
    blocker = folder / "blocker"
    blocker.mkdir(exist_ok=True)
    (blocker / "sitecustomize.py").write_text(BLOCKER.format(blocked=blocked, own=own), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(blocker), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("file", generated_files(), ids=lambda file: file.name)
def test_file_alone(tmp_path, file):
    """It is imported, builds a model from a configuration, saves, loads, and generates if it is a decoder."""
    case = next(case for case in PREDICTORS if case.module.__file__ == str(file))
    shutil.copy(file, tmp_path)
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    arguments = [file.stem, case.config_class.__name__, case.class_name, json.dumps(case.config)]
    length = "7" if hasattr(case.model_class, "generate") else "3"
    assert run_alone(tmp_path, file.stem, PROJECT, "use.py", *arguments).strip() == length


@pytest.mark.parametrize("file", files("AutoModelForMaskedLM"), ids=lambda file: file.name)
def test_encoder_as_a_program(checkpoint, tmp_path, file):
    """`python FILE CHECKPOINT --embed TEXT` prints the mean of the oracle's hidden states, of length 1."""
    case = next(case for case in cases("AutoModel") if case.module.__file__ == str(file))
    shutil.copy(file, tmp_path)
    folder = shutil.copytree(checkpoint(case).folder, tmp_path / "checkpoint")
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = ["Where is it?", "Here."]
    printed = run_alone(
        tmp_path, file.stem, (*PROJECT, "huggingface_hub"), file.name, "checkpoint", "--embed", *texts
    ).splitlines()
    assert len(printed) == len(texts)
    for text, line in zip(texts, printed, strict=True):
        with torch.no_grad():
            hidden = checkpoint(case).reference()(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        expected = torch.nn.functional.normalize(hidden.mean(1))[0]
        torch.testing.assert_close(torch.tensor(json.loads(line)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", files("AutoModelForCausalLM"), ids=lambda file: file.name)
def test_file_as_a_program(checkpoint, tmp_path, file):
    """`python FILE CHECKPOINT --prompt TEXT` prints the oracle's greedy continuation; huggingface_hub is not needed."""
    case = next(case for case in cases("AutoModelForCausalLM") if case.module.__file__ == str(file))
    shutil.copy(file, tmp_path)
    folder = shutil.copytree(checkpoint(case).folder, tmp_path / "checkpoint")
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    prompt = "Where is it?"
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    assert ids.min() >= FIRST_ORDINARY_TOKEN
    with torch.no_grad():
        tokens = checkpoint(case).reference().generate(ids, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
    expected = tokenizer.decode(tokens.tolist()).rstrip("\ufffd")
    assert len(expected) > 8
    arguments = [file.name, "checkpoint", "--prompt", prompt, "--max-new-tokens", "16"]
    printed = run_alone(tmp_path, file.stem, (*PROJECT, "huggingface_hub"), *arguments)
    assert printed.removeprefix(prompt).rstrip("\n") == expected.rstrip("\n")
