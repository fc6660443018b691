"""The fixtures of the quantization packages are what their scripts record, and what the installed packages still compute."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from oracle.quantization import fixtures

RECORDED = sorted(
    path.relative_to(fixtures.FOLDER).with_suffix("").as_posix()
    for path in fixtures.FOLDER.rglob("*.safetensors")
    if not path.name.startswith("model")
)
CONFIGS = sorted(path.relative_to(fixtures.FOLDER).as_posix() for path in fixtures.FOLDER.glob("*/*config.json"))
LIVE = {
    "record_bitsandbytes": ("blocks", "nested_blocks", "rows", "linear_8bit", "linear_4bit"),
    "record_hqq": ("quantized", "layers"),
    "record_quanto": ("layers", "activations"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_tensors_are_what_the_script_records(name: str) -> None:
    facts = fixtures.load(name).facts
    assert (facts["package"], facts["version"]) == fixtures.pinned(facts["script"])
    assert facts["script_sha256"] == fixtures.fingerprint(facts["script"]), (
        f"record again: {facts['script']} has changed"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_are_what_the_script_records(name: str) -> None:
    facts = json.loads((fixtures.FOLDER / name).read_text(encoding="utf-8"))
    assert facts["transformers"] == "5.23.0"
    assert (facts["package"], facts["version"]) == fixtures.pinned(facts["script"])
    assert facts["script_sha256"] == fixtures.fingerprint(facts["script"]), (
        f"record again: {facts['script']} has changed"
    )


def test_every_checkpoint_has_values() -> None:
    folders = {path.parent for path in fixtures.FOLDER.rglob("model*.safetensors")}
    assert folders
    assert [folder for folder in sorted(folders) if not (folder / "values.safetensors").exists()] == []


@pytest.mark.parametrize("script, function", [(script, name) for script, names in LIVE.items() for name in names])
def test_the_installed_package_computes_what_was_recorded(script: str, function: str) -> None:
    computed = getattr(importlib.import_module(f"oracle.quantization.{script}"), function)()
    recorded = fixtures.load(f"{script.removeprefix('record_')}/{function}").tensors
    assert computed.keys() == recorded.keys()
    for name, tensor in recorded.items():
        if script == "record_bitsandbytes" and function == "linear_4bit" and name.endswith("/eval"):
            continue  # of the recording machine's kernel
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1:  # the order of a sum is the processor's own
            torch.testing.assert_close(computed[name], tensor, msg=lambda text, name=name: f"{name}: {text}")
        else:
            assert torch.equal(computed[name], tensor), name
