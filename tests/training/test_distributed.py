"""Several processes under torchrun, over gloo: the same run as one process with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.conftest import SCRIPT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = (
    str(Path(sys.executable).with_name("accelerate")),
    "launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--main_process_port",
    "0",
)
SETTINGS = {
    "noise": 0, "max_steps": 20, "learning_rate": 1e-3, "weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 3,
    "logging_steps": 1, "save_steps": 8, "eval_strategy": "steps", "eval_steps": 10, "per_device_eval_batch_size": 2,
    "include_num_input_tokens_seen": True, "max_grad_norm": 0.5,
}  # fmt: skip


@pytest.mark.slow
def test_two_processes_are_one(run, tmp_path: Path) -> None:
    """Rows of unequal numbers of label tokens, split over processes and accumulated batches; an evaluation of seven rows."""
    one = run(tmp_path / "one", per_device_train_batch_size=4, gradient_accumulation_steps=1, **SETTINGS)
    two = run(
        tmp_path / "two", launcher=TORCHRUN, per_device_train_batch_size=1, gradient_accumulation_steps=2, **SETTINGS
    )
    assert two["output"].count("'train_loss'") == 1
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    assert [log["step"] for log in one["history"]] == [log["step"] for log in two["history"]]
    for mine, other in zip(two["history"], one["history"], strict=True):
        for name in mine.keys() & {"loss", "grad_norm", "learning_rate", "eval_loss", "num_input_tokens_seen"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=1e-5)
    assert {path.name for path in (tmp_path / "two" / "checkpoint-8").glob("rng*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
    for rank in range(2):  # a thread of gloo that is left aborts the program now and then
        left = json.loads((tmp_path / "two" / f"threads_{rank}.json").read_text(encoding="utf-8"))
        assert left and not [name for name in left if "gloo" in name]


@pytest.mark.slow
def test_two_processes_resume(run, tmp_path: Path) -> None:
    """With random numbers of their own in each process, bit for bit; started by accelerate, resumed by torchrun."""
    settings = {**SETTINGS, "noise": 0.1, "per_device_train_batch_size": 2}
    whole = run(tmp_path / "whole", launcher=ACCELERATE, **settings)
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "checkpoint-8").symlink_to(tmp_path / "whole" / "checkpoint-8", target_is_directory=True)
    resumed = run(folder, resume=True, launcher=TORCHRUN, **settings)
    for name, weight in whole["weights"].items():
        assert torch.equal(weight, resumed["weights"][name]), name
    losses = [[log["loss"] for log in found["history"] if "loss" in log] for found in (whole, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(llama, tmp_path: Path) -> None:
    """The launcher fails soon, with the traceback, and leaves no process."""
    program = tmp_path / "dies.py"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\nimport unibody\nfrom training import script\n"
        "class Fails(unibody.TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **_):\n"
        "        if os.environ['RANK'] == '1' and state.global_step == 3:\n"
        "            Path(sys.argv[1], 'died').touch()\n"
        "            raise RuntimeError('a worker of the test has died')\n"
        "script.Killer = lambda *_: Fails()\n"
        "script.main(Path(sys.argv[1]), Path(sys.argv[2]), {'max_steps': 1000}, 'x:1')\n",
        encoding="utf-8",
    )
    tests = SCRIPT.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, str(program), str(tmp_path / "out"), str(llama.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "RuntimeError: a worker of the test has died" in done.stderr
    assert time.time() - (tmp_path / "out" / "died").stat().st_mtime < 30
