"""Runs of models in shards: started, and what their processes wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.conftest import SCRIPT

WORKER = SCRIPT.with_name("sharded_script.py")


def rows_of(global_batch: int, processes: int, **settings: Any) -> dict[str, Any]:
    return {"per_device_train_batch_size": global_batch // processes, **settings}


def case(name: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "settings": settings, **more}


def launch(
    launcher: tuple[str, ...], folder: Path, checkpoint: Path, cases: list[dict[str, Any]], status: int = 0
) -> subprocess.CompletedProcess[str]:
    tests = SCRIPT.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1"}
    # What is freed is given back at once, so that what a process holds can be read from /proc.
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [*launcher, str(WORKER), str(folder), str(checkpoint), json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode == 0) == (status == 0), done.stdout[-1000:] + done.stderr[-5000:]
    return done


class Runs:
    """What the processes of each case wrote, by the case's name; and the folder of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> list[dict[str, Any]]:
        files = sorted((self.folder / name).glob("rank-*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "final" / "model.safetensors")

    def check(self, name: str, runs: Runs, reference: str, processes: int, steps: int = 20) -> None:
        """Every process saw the reference's losses, gradient norms and evaluation; the weights are the reference's."""
        mine, (other, *_) = self(name), runs(reference)
        assert len(mine) == processes, mine
        for one in mine:
            assert "error" not in one, one["error"]
            assert len(one["losses"]) == steps
            for key in ("losses", "norms", "eval_loss"):
                assert one[key] == pytest.approx(other[key], rel=0, abs=1e-5), key
        theirs = {key.removeprefix("inner."): tensor for key, tensor in self.weights(name).items()}
        for key, tensor in runs.weights(reference).items():
            torch.testing.assert_close(theirs.pop(key), tensor, rtol=0, atol=1e-5)
        assert not theirs


def copied(source: Path, target: Path, last: int) -> None:
    """The checkpoints of a run up to a step, as if it had been stopped there."""
    target.mkdir()
    for folder in source.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) <= last:
            shutil.copytree(folder, target / folder.name)
