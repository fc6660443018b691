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
    done = start(program, tmp_path / "out", llama.folder)
    assert done.returncode == 1
    assert "RuntimeError: a worker of the test has died" in done.stderr
    assert time.time() - (tmp_path / "out" / "died").stat().st_mtime < 30


@pytest.mark.slow
def test_the_group_of_a_program_is_left_to_it(llama, tmp_path: Path) -> None:
    """The trainer ends only what it has made; and no trainer lives on until the program ends."""
    program = tmp_path / "own.py"
    program.write_text(
        "import atexit, gc, sys\nfrom pathlib import Path\nimport torch\nfrom torch import distributed\n"
        "from ending import end\nfrom training import script\nfrom unibody.training.engines import Engine\n"
        "def last():\n"
        "    total = torch.ones(1)\n"
        "    distributed.all_reduce(total)\n"
        "    Path(sys.argv[1], f'sum-{distributed.get_rank()}').write_text(f'{total.item()} {held}')\n"
        "    end()\n"
        "distributed.init_process_group('gloo')\n"
        "atexit.register(last)\n"  # before what the trainer registers, so that it runs after that
        "script.main(Path(sys.argv[1]), Path(sys.argv[2]), {'max_steps': 2})\n"
        "gc.collect()\n"
        "held = sum(type(one) is Engine for one in gc.get_objects())\n",
        encoding="utf-8",
    )
    done = start(program, tmp_path / "out", llama.folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / "out" / f"sum-{rank}").read_text() for rank in range(2)] == ["2.0 0"] * 2


def start(program: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Two processes of a program, under torchrun."""
    tests = SCRIPT.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, str(program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
