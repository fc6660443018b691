"""What every release has written loads, and gives what it gave then: tests/oracle/record_golden.py made the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from oracle.record_golden import OUT, logits, train
from safetensors.torch import load_file

import unibody

RELEASES = sorted(OUT.iterdir())
MODELS = [folder for release in RELEASES for folder in sorted((release / "models").iterdir())]
PACKED = [folder for release in RELEASES for folder in sorted((release / "quantized").iterdir())]
every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)


def name(folder: Path) -> str:
    return str(folder.relative_to(OUT))


def assert_same(folder: Path, found: torch.Tensor, what: str) -> None:
    expected = load_file(folder / "values.safetensors")[what]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("folder", MODELS, ids=name)
def test_models(folder: Path) -> None:
    assert_same(folder.parents[1], logits(folder, folder.name), f"models/{folder.name}")


@every_release
def test_in_several_files(release: Path) -> None:
    assert len(list((release / "sharded").glob("*.safetensors"))) > 2
    assert_same(release, logits(release / "sharded"), "models/LlamaForCausalLM")


@pytest.mark.parametrize("folder", PACKED, ids=name)
def test_packed_models(folder: Path) -> None:
    assert_same(folder.parents[1], logits(folder), f"quantized/{folder.name}")


@every_release
def test_an_adapter(release: Path) -> None:
    model = unibody.AutoModelForCausalLM.from_pretrained(release / "models/LlamaForCausalLM")
    model.load_adapter(release / "adapter")
    with torch.no_grad():
        assert_same(release, model(load_file(release / "values.safetensors")["input_ids"]).logits, "adapter")


@every_release
def test_a_tokenizer(release: Path) -> None:
    facts = json.loads((release / "values.json").read_text(encoding="utf-8"))
    tokenizer = unibody.AutoTokenizer.from_pretrained(release / "tokenizer")
    for text, ids in facts["texts"].items():
        assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False) == facts["chat"]


@every_release
def test_a_run_goes_on(release: Path, tmp_path: Path) -> None:
    """With its optimizer, schedule and place in the data: the losses of the run that was not stopped."""
    facts = json.loads((release / "values.json").read_text(encoding="utf-8"))
    shutil.copytree(release / "trainer/checkpoint-2", tmp_path / "checkpoint-2")
    found = train(tmp_path, release / "models/LlamaForCausalLM", tmp_path / "checkpoint-2")
    assert found == pytest.approx(facts["losses"], abs=1e-5)
    assert len(found) == 4
    unibody.TrainingArguments.from_json_file(release / "trainer/checkpoint-2/training_args.json")
