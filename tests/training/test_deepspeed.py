"""ZeRO in two processes over gloo: the same run as one process, with a part of the memory; saved, killed, resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
from oracle.reference import Checkpoint
from safetensors.torch import load_file

import unibody
from training.deepspeed_worker import AUTO, BATCH, CLOSE, OPTIMIZER, RUNS, SAME_SETTINGS, SCHEDULER, STEADY
from training.rows import rows

TESTS = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("deepspeed_worker.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
DEEPSPEED = (sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--no_local_rank")
STAGES = (0, 1, 2, 3)
pytestmark = pytest.mark.slow


def launch(
    launcher: tuple[str, ...], program: Path, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
        "MALLOC_MMAP_THRESHOLD_": "131072",  # memory that is free is given back, for who measures it
    }  # fmt: skip
    command = [*launcher, str(program), str(folder), *arguments]
    with subprocess.Popen(
        command, env=environment, cwd=folder, text=True, stdout=PIPE, stderr=PIPE, start_new_session=True
    ) as process:
        try:
            output = process.communicate(timeout=300)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, *output)


def deepspeed_launcher() -> tuple[str, ...]:
    """`deepspeed`, for two processes that meet at a free port; its script would be given --local_rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return (*DEEPSPEED, "--master_port", str(free.getsockname()[1]))


def work(
    llama: Checkpoint, folder: Path, scenarios: dict[str, Any], launcher: tuple[str, ...] = TORCHRUN
) -> list[Any]:
    """What each of the two processes found."""
    done = launch(launcher, WORKER, folder, str(llama.folder), json.dumps(scenarios))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((folder / f"found-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepspeed")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 100 MB."""
    config = unibody.LlamaConfig(
        vocab_size=2000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("large")
    unibody.LlamaForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def steady(folder: Path) -> dict[str, Any]:
    """ZeRO-3 with DeepSpeed's own optimizer and schedule, in a file."""
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    config = {
        **BATCH,
        "optimizer": OPTIMIZER,
        "scheduler": SCHEDULER,
        "bf16": {"enabled": AUTO},
        "zero_optimization": zero,
    }
    file = folder / "zero3.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return {"name": "steady", "file": str(file)}


@pytest.fixture(scope="module")
def found(llama: Checkpoint, folder: Path, large: Path, steady: dict[str, Any]) -> list[Any]:
    """All that needs two processes, in one launch: each library is imported once."""
    scenarios = {
        "curves": {}, "same": {}, "loading": {"large": str(large)}, "saving": {}, "generating": {}, "spoiling": {}, "again": {}, "tied": {},
        "refusing": {"other": str(large)}, "steady": {**steady, "name": "whole"},
    }  # fmt: skip
    return work(llama, folder, scenarios)


@pytest.fixture(scope="module")
def alone(llama: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same runs in this process, with the whole batch at once, and without DeepSpeed."""
    runs = {}
    for name, settings in RUNS.items():
        args = unibody.TrainingArguments(
            str(tmp_path_factory.mktemp("alone")), use_cpu=True, per_device_train_batch_size=4, per_device_eval_batch_size=2,
            max_steps=20, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, **settings,
        )  # fmt: skip
        runs[name] = trainer = unibody.Trainer(llama.load(), args, train_dataset=rows(), eval_dataset=rows(7, seed=2))
        trainer.before = trainer.evaluate()["eval_loss"]
        trainer.train()
        trainer.after = trainer.evaluate()["eval_loss"]
    return runs


def logged(history: list[dict[str, Any]], name: str) -> list[float]:
    return [log[name] for log in history if "loss" in log]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RUNS)
def test_same_curve_as_one_process(found: list[Any], alone: dict[str, Any], name: str, stage: int) -> None:
    """Losses, norms, rates and evaluations of 20 steps, with the same global batch."""
    run, one = found[0]["curves"][f"{name}-{stage}"], alone[name]
    for key in ("loss", "grad_norm", "learning_rate"):
        expected = logged(one.state.log_history, key)
        assert len(run[key]) == len(expected) == 20
        assert run[key] == pytest.approx(expected, abs=CLOSE), key
    assert run["eval_loss"] == pytest.approx([one.before, one.after], abs=CLOSE)
    if stage:
        assert run["grad_norm"][-1] == pytest.approx(run["norm_of_deepspeed"], rel=1e-6)


def test_memory(found: list[Any], llama: Checkpoint) -> None:
    """What a process keeps of two: of the optimizer from stage 1 on, of the weights in stage 3."""
    whole = sum(parameter.numel() for parameter in llama.original.parameters())
    for stage in STAGES:
        for process in found:
            kept = process["curves"][f"adamw-{stage}"]
            assert kept["optimizer"] <= (0.6 if stage else 1) * 2 * whole  # two moments
            assert kept["parameters"] <= (0.6 if stage == 3 else 1) * whole
        if stage:
            assert sum(process["curves"][f"adamw-{stage}"]["optimizer"] for process in found) >= 2 * whole


def test_loading_holds_a_part(found: list[Any]) -> None:
    """No process ever has more of the checkpoint in its memory than its part and the weights at hand."""
    for process in found:
        loading = process["loading"]
        assert loading["whole"] > 100e6 and loading["left"] == 0
        assert loading["kept"] <= 0.51 * loading["whole"] and loading["made"] <= 0.51 * loading["whole"]
        assert loading["peak"] <= 0.6 * loading["whole"]
        assert loading["deviation"] == pytest.approx(0.02, rel=0.05)  # initializer_range
        packed, placed, saved = loading["errors"]
        assert packed.startswith("ZeRO-3 partitions plain weights, and bitsandbytes packs them: set zero_optim")
        assert placed.endswith("leave out device_map='cpu'")
        assert saved.startswith("ZeRO-3 keeps the weights in parts: save with the trainer's save_model")


def test_tied_weights(found: list[Any], folder: Path) -> None:
    for process in found:
        for tied in process["tied"].values():
            assert tied["difference"] == 0
            assert 0.49 < tied["kept"] < 0.51 and tied["made"] < 0.55
    for name in ("llama", "bert"):
        before, after = (load_file(folder / f"tied-{name}" / part / "model.safetensors") for part in ("", "trained"))
        assert before.keys() == after.keys()
        assert any(not torch.equal(weight, after[key]) for key, weight in before.items())


def test_generation_in_step(found: list[Any], llama: Checkpoint) -> None:
    """Token for token the oracle's, though the processes end at different lengths."""
    model = llama.reference()
    for rank, process in enumerate(found):
        ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]) + rank
        greedy, beams, stream = process["generating"]
        options = {"max_new_tokens": 4 + 5 * rank, "do_sample": False, "attention_mask": torch.ones_like(ids)}
        assert greedy == model.generate(ids, **options).tolist()
        assert beams == model.generate(ids, num_beams=2, **options).tolist()
        assert torch.tensor(stream).T.tolist() == [row[4 : 4 + 3 - rank] for row in greedy]


def test_the_best_is_loaded(found: list[Any], folder: Path) -> None:
    for stage in (0, 2, 3):
        best = found[0]["saving"][str(stage)]
        assert best["step"] == 2 and best["eval_loss"] == best["best"]
        names = {path.name for path in (folder / f"saving-{stage}").glob("checkpoint-*")}
        assert names == {"checkpoint-2", "checkpoint-6"}


def test_whole_weights_are_the_parts(found: list[Any], folder: Path, tmp_path: Path) -> None:
    """What is gathered for model.safetensors is what DeepSpeed's own script makes of the parts, rounded."""
    checkpoint = folder / "saving-3" / "checkpoint-6"
    whole = assert_same_as_parts(checkpoint, checkpoint, tmp_path / "half")
    assert {weight.dtype for weight in whole.values()} == {torch.bfloat16}
    assert not (folder / "parts" / "checkpoint-2" / "model.safetensors").exists()
    assert_same_as_parts(folder / "parts" / "checkpoint-2", folder / "parts" / "whole", tmp_path / "parts")
    again = unibody.AutoModelForCausalLM.from_pretrained(folder / "saving-3" / "best")
    for name, weight in load_file(folder / "saving-3" / "checkpoint-2" / "model.safetensors").items():
        assert torch.equal(again.get_parameter(name), weight)


def assert_same_as_parts(checkpoint: Path, whole: Path, place: Path) -> dict[str, torch.Tensor]:
    command = [
        sys.executable,
        str(checkpoint / "zero_to_fp32.py"),
        str(checkpoint),
        str(place),
        "--safe_serialization",
    ]
    done = subprocess.run(command, env={**os.environ, "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    made, stored = load_file(place / "model.safetensors"), load_file(whole / "model.safetensors")
    assert made.keys() >= stored.keys()
    for name, weight in stored.items():
        assert made[name].dtype == torch.float32 and torch.equal(made[name].to(weight.dtype), weight), name
    return stored


def test_steps_that_are_not_finite(found: list[Any]) -> None:
    """Such a step leaves everything as it was, in all processes, at every stage."""
    spoiled = found[0]["spoiling"]
    for kind, tolerance in ((False, CLOSE), (True, 2e-3)):
        for stage in STAGES:
            losses, skipped = spoiled[f"{stage}-{kind}"]
            assert skipped == 1 and len(losses) == 4
            assert losses == pytest.approx(spoiled["0-False"][0], abs=tolerance)
    assert [process["spoiling"]["error"].partition(":")[0] for process in found] == ["step 3", "step 3"]
    assert "the loss is nan in batch 2 of epoch 0" in found[1]["spoiling"]["error"]
    assert "the loss is nan in another process" in found[0]["spoiling"]["error"]


def test_again(found: list[Any]) -> None:
    """A second run goes on from the weights of the first; layers that are computed again compute the same."""
    runs = found[0]["again"]
    assert runs["twice-1"] == pytest.approx(runs["twice-3"], abs=CLOSE)
    for stage in (1, 3):
        assert runs[f"recomputed-{stage}"] == pytest.approx(found[0]["curves"][f"sgd-{stage}"]["loss"][:3], abs=0.2)
        assert runs[f"twice-{stage}"][0] < runs[f"recomputed-{stage}"][0] - 0.1


def test_refused(found: list[Any]) -> None:
    refused = found[0]["refusing"]
    assert (
        "\n- train_micro_batch_size_per_gpu is 7, and per_device_train_batch_size is 1\n" in refused["contradiction"]
    )
    assert "\n- gradient_clipping is 3.0, and max_grad_norm is 1.0\n" in refused["contradiction"]
    assert (
        refused["optimizer"]
        == "there is an optimizer in the DeepSpeed configuration, and one was given: leave out one"
    )
    assert (
        "is no checkpoint to resume from, it has no trainer_state.json, latest, scheduler.pt"
        in refused["no checkpoint"]
    )
    assert "is a checkpoint of another model than this LlamaForCausalLM: it has besides" in refused["other model"]
    assert "fewer holds the parts of 1 processes, and there are 2: resume with as many" in refused["other number"]
    assert refused["upload"].startswith("push_to_hub uploads whole weights: set zero_optimization.stage3_gather")
    assert refused["compiler"].startswith("torch_compile is not for DeepSpeed: leave it out")
    assert refused["float16"].endswith("set zero_optimization.stage to 1, or bf16")


def test_killed_and_resumed(found: list[Any], llama: Checkpoint, folder: Path, steady: dict[str, Any]) -> None:
    """A worker killed under torchrun; the same script goes on under `deepspeed`, bit for bit as if it had not been killed."""
    killed = launch(
        TORCHRUN,
        WORKER,
        folder,
        str(llama.folder),
        json.dumps({"steady": {**steady, "kill": STEADY["max_steps"] - 2}}),
    )
    assert killed.returncode == 1 and "SIGKILL" in killed.stderr
    assert {path.name for path in (folder / "steady").iterdir()} == {"checkpoint-4", "checkpoint-8"}
    resumed = work(llama, folder, {"steady": {**steady, "resume": True}}, deepspeed_launcher())
    assert resumed[0]["steady"] == found[0]["steady"]
    assert len(set(resumed[0]["steady"]["loss"])) == STEADY["max_steps"]
    weights = load_file(folder / "whole" / "end" / "model.safetensors")
    for name, weight in load_file(folder / "steady" / "end" / "model.safetensors").items():
        assert torch.equal(weight, weights[name]), name


def test_same_curve_as_the_oracle(found: list[Any], llama: Checkpoint, tmp_path: Path) -> None:
    """transformers' Trainer with the same configurations: its own optimizer and schedule, or DeepSpeed's."""
    done = launch(TORCHRUN, WORKER.with_name("deepspeed_oracle.py"), tmp_path, str(llama.folder))
    assert done.returncode == 0, done.stderr[-4000:]
    expected = json.loads((tmp_path / "oracle.json").read_text(encoding="utf-8"))
    assert found[0]["same"].keys() == expected.keys()
    for name, run in found[0]["same"].items():
        assert len(run) == SAME_SETTINGS["max_steps"]
        for step, other in zip(run, expected[name], strict=True):
            assert step == pytest.approx(other, abs=CLOSE), name


def test_a_process_that_dies_ends_the_run(llama: Checkpoint, tmp_path: Path, steady: dict[str, Any]) -> None:
    """`deepspeed` fails soon, with the traceback."""
    scenario = {"steady": {**steady, "kill": 3, "word": "a worker of the test has died"}}
    done = launch(deepspeed_launcher(), WORKER, tmp_path, str(llama.folder), json.dumps(scenario))
    assert done.returncode != 0
    assert "RuntimeError: a worker of the test has died" in done.stdout + done.stderr
    assert time.time() - (tmp_path / "died").stat().st_mtime < 30
