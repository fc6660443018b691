"""Checkpoints that were quantized here, with layers that differ, as gptqmodel and auto-round read them: recorded, and live where they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs, record_auto_round_saved, record_gptqmodel_saved
from quantizers.files import ROOT
from safetensors.torch import load_file

import unibody

SCRIPTS: dict[str, Any] = {"gptqmodel": record_gptqmodel_saved, "auto-round": record_auto_round_saved}
CASES = [(package, case) for package, script in SCRIPTS.items() for case in script.CASES]
LIVE = """
import sys
from pathlib import Path
from oracle.quantization import {script} as script
from safetensors.torch import save_file
save_file({{case: script.logits(case, Path(sys.argv[1]) / case) for case in script.CASES}}, sys.argv[2])
"""


def logits(folder: Path) -> torch.Tensor:
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(inputs.token_ids(2, 16)).logits
    return found


@pytest.mark.parametrize(("package", "case"), CASES)
def test_what_was_read(package: str, case: str, tmp_path: Path) -> None:
    """What the package computed with the recorded checkpoint; what is saved today is that checkpoint."""
    folder = fixtures.FOLDER / package / case
    expected = fixtures.load(f"{package}/{case}/values").tensors["logits"]
    torch.testing.assert_close(logits(folder), expected, rtol=1e-4, atol=1e-4)
    SCRIPTS[package].save(case, tmp_path)
    written, recorded = (json.loads((path / "config.json").read_text()) for path in (tmp_path, folder))
    assert written["quantization_config"] == recorded["quantization_config"]
    saved, stored = (load_file(path / "model.safetensors") for path in (tmp_path, folder))
    assert {name: (x.shape, x.dtype) for name, x in saved.items()} == {
        name: (x.shape, x.dtype) for name, x in stored.items()
    }
    for name, tensor in stored.items():  # of GPTQ's, a few codes may fall on the other side of a tie
        assert (saved[name] != tensor).sum() <= (0.01 * tensor.numel() if package == "gptqmodel" else 0), name


@pytest.mark.slow
@pytest.mark.parametrize("package", SCRIPTS)
def test_what_the_package_reads(package: str, tmp_path: Path) -> None:
    """The package itself, with what is saved today."""
    python, script = ROOT / f".venv-oracle-{package}/bin/python", SCRIPTS[package]
    if not python.exists():
        pytest.skip(f"there is no {package}: make oracle-{package}")
    for case in script.CASES:
        script.save(case, tmp_path / case)
    command = [python, "-c", LIVE.format(script=script.__name__.rpartition(".")[2]), tmp_path, tmp_path / "logits"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT / "tests"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for case, expected in load_file(tmp_path / "logits").items():
        torch.testing.assert_close(logits(tmp_path / case), expected, rtol=1e-4, atol=1e-4)
