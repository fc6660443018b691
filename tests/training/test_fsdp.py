"""FSDP over gloo, on one, two and four processes: the numbers of one process, half of the bytes, and checkpoints for any number.

A module's worth of runs shares a few launches; each test reads what they left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import unibody
from training.conftest import SCRIPT
from training.test_distributed import ACCELERATE, TORCHRUN

WORKER = SCRIPT.with_name("sharded_script.py")
FOUR = (*TORCHRUN[:-1], "4")
LAUNCHED = (
    *(ACCELERATE[0], "launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--main_process_port", "0"),
    *("--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "--fsdp_state_dict_type", "SHARDED_STATE_DICT"),
)
PARTS = {"state_dict_type": "SHARDED_STATE_DICT"}
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Bert", "Roberta")
BRIEF = {"max_steps": 3, "save_strategy": "no", "per_device_train_batch_size": 2, "eval_strategy": "no"}

pytestmark = pytest.mark.slow


def rows_of(global_batch: int, processes: int, **settings: Any) -> dict[str, Any]:
    return {"per_device_train_batch_size": global_batch // processes, **settings}


def case(name: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "settings": settings, **more}


def launch(
    launcher: tuple[str, ...], folder: Path, checkpoint: Path, cases: list[dict[str, Any]], status: int = 0
) -> subprocess.CompletedProcess[str]:
    tests = SCRIPT.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1"}
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

    def check(self, name: str, reference: str, processes: int, steps: int = 20) -> None:
        """Every process saw the reference's losses, gradient norms and evaluation; the weights are the reference's."""
        mine, (other, *_) = self(name), self(reference)
        assert len(mine) == processes, mine
        for one in mine:
            assert "error" not in one, one["error"]
            assert len(one["losses"]) == steps
            for key in ("losses", "norms", "eval_loss"):
                assert one[key] == pytest.approx(other[key], rel=0, abs=1e-5), key
        weights = self.weights(reference)
        assert weights.keys() == self.weights(name).keys()
        for key, tensor in self.weights(name).items():
            torch.testing.assert_close(tensor, weights[key], rtol=0, atol=1e-5)


def copied(source: Path, target: Path, last: int) -> None:
    """The checkpoints of a run up to a step, as if it had been stopped there."""
    target.mkdir()
    for folder in source.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) <= last:
            shutil.copytree(folder, target / folder.name)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 25 MB in bfloat16, 50 MB in float32."""
    torch.manual_seed(0)
    config = unibody.LlamaConfig(
        vocab_size=2048, hidden_size=512, intermediate_size=1376, num_hidden_layers=3, num_attention_heads=8
    )
    folder = tmp_path_factory.mktemp("large")
    unibody.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one(llama, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process, started with python: without FSDP, and with it."""
    folder = tmp_path_factory.mktemp("one")
    cases = [
        case("adamw", rows_of(4, 1)),
        case("sgd", rows_of(4, 1, optim="sgd", optim_args={"momentum": 0.9})),
        case("whole", rows_of(4, 1, fsdp=True)),
        case("parts", rows_of(4, 1, fsdp=True, fsdp_config=PARTS)),
        case("qlora", rows_of(4, 1), model="qlora"),
    ]
    launch((sys.executable,), folder, llama.folder, cases)
    return Runs(folder)


@pytest.fixture(scope="module")
def two(llama, large: Path, one: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two processes under torchrun."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("adamw", "parts"):
        copied(one.folder / name, folder / f"{name}_from_one", last=8)
    momentum = {"optim": "sgd", "optim_args": {"momentum": 0.9}}
    late = {"cpu_ram_efficient_loading": True}
    cases = [
        case("warm", {**BRIEF, "fsdp": True}),
        case("late", {**BRIEF, "optim": "sgd", "fsdp": True, "fsdp_config": late}, model=str(large)),
        case("now", {**BRIEF, "optim": "sgd", "fsdp": True}, model=str(large)),
        case("ddp", rows_of(4, 2)),
        case("adamw", rows_of(2, 2, fsdp=True, gradient_accumulation_steps=2), predict=True),
        case("sgd", rows_of(4, 2, fsdp="shard_grad_op", **momentum)),
        case("parts", rows_of(4, 2, fsdp=["full_shard"], fsdp_config=PARTS)),
        case("adamw_from_one", rows_of(4, 2, fsdp=True, fsdp_config=late), resume=True),
        case("parts_from_one", rows_of(4, 2, fsdp=True), resume=True),
        case("file", rows_of(4, 2, fsdp=True, fsdp_config={"activation_checkpointing": True}), model="file"),
        case("sized", rows_of(4, 2, fsdp="full_shard auto_wrap", fsdp_config={"min_num_params": 3000})),
        case("wrapped", rows_of(4, 2, fsdp=True, gradient_checkpointing=True), model="wrapped"),
        case("bf16", rows_of(4, 2, fsdp=True, bf16=True)),
        case("tied", rows_of(4, 2, fsdp=True, fsdp_config=PARTS, max_steps=10), model="tied"),
        case("tied_ddp", rows_of(4, 2, max_steps=10), model="tied"),
        case("qlora", rows_of(4, 2, fsdp=True), model="qlora"),
        *(case(f"{name}_fsdp", {**BRIEF, "fsdp": True}, model=f"family:{name}") for name in FAMILIES),
        *(case(f"{name}_ddp", BRIEF, model=f"family:{name}") for name in FAMILIES),
        case("wrong_layer", {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayers"}}),
        case("offload", {"fsdp": "full_shard offload"}),
        case("hybrid", {"fsdp": "hybrid_shard"}),
        case("indivisible", {"fsdp": "hybrid_shard", "fsdp_config": {"dp_replicate_size": 3}}),
        case("adafactor", {"fsdp": True, "optim": "adafactor"}),
    ]
    launch(TORCHRUN, folder, llama.folder, cases)
    return Runs(folder)


def test_one_process(one: Runs) -> None:
    one.check("whole", "adamw", 1)
    one.check("parts", "adamw", 1)
    assert one("whole")[0]["units"] == ["FSDPLlamaDecoderLayer", "FSDPLlamaForCausalLM"]


def test_two_processes_are_one(one: Runs, two: Runs, tmp_path: Path) -> None:
    """One process, DDP and FSDP: the same run; of weights and optimizer, each process of FSDP has half."""
    both = Runs(tmp_path)
    for name, reference in (("adamw", "adamw"), ("sgd", "sgd"), ("parts", "adamw"), ("ddp", "adamw"), ("file", "adamw"), ("sized", "adamw")):
        for suffix, runs, source in (("", two, name), ("_one", one, reference)):
            (tmp_path / f"{name}{suffix}").symlink_to(runs.folder / source, target_is_directory=True)
        both.check(name, f"{name}_one", 2)
        (whole,) = one(reference)
        for process in two(name) if name != "ddp" else ():
            assert process["parameters"] + process["optimizer"] <= 0.6 * (whole["parameters"] + whole["optimizer"])
            assert process["parameters"] <= 0.6 * whole["parameters"] and process["optimizer"] <= 0.6 * whole["optimizer"]
    assert two("sized")[0]["units"] != two("adamw")[0]["units"] == ["FSDPLlamaDecoderLayer", "FSDPLlamaForCausalLM"]
    assert two("adamw")[1]["predictions"] == [5, 12, 128]
