"""Processes that share a model train it as one process does: curves, norms, weights, checkpoints; two, and two groups of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import unibody
from training.test_distributed import SETTINGS, TORCHRUN

FOUR = (*TORCHRUN[:-1], "4")
TWO_PARTS = {"parallelism_config": {"tp_size": 2}}
SHARED = {**SETTINGS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def assert_same_run(found: Any, expected: Any) -> None:
    assert [log["step"] for log in found["history"]] == [log["step"] for log in expected["history"]]
    for mine, other in zip(found["history"], expected["history"], strict=True):
        for name in mine.keys() & {"loss", "grad_norm", "learning_rate", "eval_loss", "num_input_tokens_seen"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_are_one(run, tmp_path: Path) -> None:
    """With AdamW; checkpoints are each other's, so that a run goes on with another number of processes."""
    one = run(tmp_path / "one", per_device_train_batch_size=4, **SETTINGS)
    two = run(tmp_path / "two", launcher=TORCHRUN, **SHARED, **TWO_PARTS)
    assert two["output"].count("'train_loss'") == 1
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    assert_same_run(two, one)
    ours, theirs = (torch.load(tmp_path / name / "checkpoint-8/optimizer.pt") for name in ("two", "one"))
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(ours["state"][number][name], value, rtol=0, atol=1e-5)
    for source, name in (("two", "one-after-two"), ("one", "two-after-one"), ("two", "two-after-two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint-8").symlink_to(tmp_path / source / "checkpoint-8", target_is_directory=True)
    with_one = run(tmp_path / "one-after-two", resume=True, per_device_train_batch_size=4, **SETTINGS)
    with_two = run(tmp_path / "two-after-one", resume=True, launcher=TORCHRUN, **SHARED, **TWO_PARTS)
    again = run(tmp_path / "two-after-two", resume=True, launcher=TORCHRUN, **SHARED, **TWO_PARTS)
    assert_same_run(with_one, one)
    assert_same_run(with_two, one)
    for name, weight in two["weights"].items():
        assert torch.equal(again["weights"][name], weight), name


@pytest.mark.slow
def test_two_groups_of_two(run, tmp_path: Path) -> None:
    """With SGD; each group has a copy of the model and half of the rows, and recomputes. The best weights are loaded at the end."""
    settings = {**SETTINGS, "optim": "sgd", "learning_rate": 1e-2, "save_steps": 10, "load_best_model_at_end": True}
    one = run(tmp_path / "one", per_device_train_batch_size=4, **settings)
    sizes = {"parallelism_config": {"tp_size": 2, "dp_replicate_size": 2}}
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "gradient_checkpointing": True}
    four = run(tmp_path / "four", launcher=FOUR, **settings, **options, **sizes)
    assert four["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    assert_same_run(four, one)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"tp_size": 2, "cp_size": 2},
            "parallelism_config asks for cp_size=2: the sizes are dp_replicate_size and tp_size",
        ),
        ({"tp_size": 0}, "parallelism_config says tp_size=0: it must be at least 1"),
        ({"tp": 2}, "parallelism_config has no 'tp': the sizes are dp_replicate_size and tp_size"),
    ],
)
def test_sizes_that_are_none(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unibody.TrainingArguments(parallelism_config=config)


def test_sizes_of_accelerate() -> None:
    from accelerate import ParallelismConfig

    args = unibody.TrainingArguments(parallelism_config=ParallelismConfig(tp_size=2))
    assert args.parallelism_config == {"tp_size": 2, "dp_replicate_size": 1}
    assert unibody.TrainingArguments(parallelism_config=ParallelismConfig()).parallelism_config is None


def test_one_process(trainer) -> None:
    with pytest.raises(ValueError, match="start the program with torchrun"):
        trainer(parallelism_config={"tp_size": 2})
    with pytest.raises(ValueError, match="fp16 scales losses"):
        trainer(parallelism_config={"tp_size": 2}, fp16=True)
