"""A run that was killed and resumed is the run that was not: weights bit for bit, and the log."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import unibody
from training.rows import rows

SETTINGS = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2, "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine", "warmup_ratio": 0.2, "logging_steps": 3, "save_steps": 4, "eval_strategy": "steps",
    "eval_steps": 5, "save_total_limit": 2, "weight_decay": 0.1,
}  # fmt: skip


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in log.items() if not k.endswith(("_runtime", "_per_second")) and k != "time"}
        for log in history
    ]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_killed_and_resumed(run, tmp_path: Path) -> None:
    """Killed in the middle of an epoch and of a logging interval, then while a checkpoint is written, then resumed to the end."""
    whole = run(tmp_path / "whole", **SETTINGS)
    folder = tmp_path / "killed"
    run(folder, "on_step_end:10", **SETTINGS)
    assert {path.name for path in folder.iterdir()} == {"checkpoint-4", "checkpoint-8", "log.jsonl"}
    run(folder, "saving:16", resume=True, dataloader_num_workers=1, **SETTINGS)
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoint-8", "checkpoint-12", ".checkpoint-16.partial", "log.jsonl"}
    resumed = run(folder, resume=True, **SETTINGS)
    assert whole["weights"].keys() == resumed["weights"].keys()
    for name, weight in whole["weights"].items():
        assert torch.equal(weight, resumed["weights"][name]), name
    assert without_times(whole["history"]) == without_times(resumed["history"])
    assert without_times(lines(tmp_path / "whole")) == without_times(lines(folder))
    assert len({log["loss"] for log in whole["history"] if "loss" in log}) > 5
    assert sorted(path.name for path in folder.glob(".*")) == []
    assert unibody.get_last_checkpoint(folder) == str(folder / "checkpoint-26")


def stop_at(step: int) -> Any:
    class Stop(unibody.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= state.global_step == step

    return Stop()


class Stream(torch.utils.data.IterableDataset):
    """Rows without a length, in another order each epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(rows(18, seed=5 + self.epoch))


@pytest.mark.parametrize(
    "more",
    [
        {"optim": "sgd", "save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True},
        {"optim": "adafactor", "save_steps": 3, "lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 3},
        {"optim": "rmsprop", "save_steps": 3, "train_dataset": Stream(), "max_steps": 12},
        {"save_steps": 2, "train_dataset": Stream(), "max_steps": 12, "save_total_limit": 1},
    ],
    ids=["epochs", "plateau", "stream", "stream-epoch-end"],
)  # fmt: skip
def test_stopped_and_resumed(trainer, tmp_path: Path, more: dict[str, Any]) -> None:
    """In one process: other optimizers, checkpoints at an epoch's end, and data that can only be iterated."""
    given = {"num_train_epochs": 3, "learning_rate": 1e-2, "save_strategy": "steps", "gradient_accumulation_steps": 3}
    given |= {"eval_dataset": rows(5, seed=2), "train_dataset": rows(18), **more}
    whole = trainer(output_dir=tmp_path / "whole", **given)
    whole.train()
    trainer(output_dir=tmp_path / "parts", callbacks=[stop_at(6)], **given).train()
    resumed = trainer(output_dir=tmp_path / "parts", **given)
    resumed.train(resume_from_checkpoint=True)
    assert without_times(whole.state.log_history) == without_times(resumed.state.log_history)
    for mine, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_another_batch_size_goes_on_at_the_same_example(trainer) -> None:
    """So that a run can go on with other batches, or on another number of processes."""

    class Watched(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            seen.append(index)
            return super().__getitem__(index)

    seen: list[int] = []
    data = {"train_dataset": Watched(rows()), "save_strategy": "steps", "save_steps": 4}
    trainer(max_steps=4, per_device_train_batch_size=4, **data).train()
    trainer(max_steps=8, per_device_train_batch_size=2, **data).train(resume_from_checkpoint=True)
    assert seen == torch.randperm(50, generator=torch.Generator().manual_seed(42)).tolist()[:24]


def test_state_file(trainer) -> None:
    made = trainer(
        max_steps=4, save_strategy="steps", save_steps=2, eval_dataset=rows(4), eval_strategy="steps", eval_steps=2
    )
    made.train()
    folder = Path(made.args.output_dir, "checkpoint-4")
    stored = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    assert stored["format_version"] == 1 and stored["global_step"] == stored["max_steps"] == 4
    assert [log["step"] for log in stored["log_history"]] == [1, 2, 2, 3, 4, 4]
    assert unibody.TrainingArguments.from_json_file(folder / "training_args.json") == made.args
    again = unibody.AutoModelForCausalLM.from_pretrained(folder)
    for mine, other in zip(made.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_rotation_spares_the_best(trainer, tmp_path: Path) -> None:
    """`save_total_limit` keeps the newest, and the best; the weights at the end are the best's."""
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.4])
    made = trainer(
        max_steps=5, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="score", eval_dataset=rows(4),
        compute_metrics=lambda found: {"score": next(scores)}, learning_rate=0.01,
    )  # fmt: skip
    made.train()
    folder = Path(made.args.output_dir)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-5"]
    assert made.state.best_metric == 0.9 and made.state.best_model_checkpoint == str(folder / "checkpoint-2")
    best = unibody.AutoModelForCausalLM.from_pretrained(folder / "checkpoint-2")
    for mine, other in zip(made.model.parameters(), best.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_early_stopping_counts_on_after_a_resume(trainer, tmp_path: Path) -> None:
    def make(scores: list[float], **more: Any) -> Any:
        given = iter(scores)
        return trainer(
            max_steps=9, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, eval_dataset=rows(4),
            metric_for_best_model="score", compute_metrics=lambda found: {"score": next(given)},
            callbacks=[unibody.EarlyStoppingCallback(3), *more.get("callbacks", [])],
        )  # fmt: skip

    assert make([0.5, 0.4, 0.3, 0.2]).train().global_step == 4
    make([0.5, 0.4, 0.3], callbacks=[stop_at(3)]).train()
    assert make([0.2]).train(resume_from_checkpoint=Path(tmp_path, "unibody", "checkpoint-3")).global_step == 4


def test_sigterm_saves_and_stops(trainer) -> None:
    """What Slurm and Kubernetes send before they end a job."""

    class Terminated(unibody.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    made = trainer(max_steps=9, enable_jit_checkpoint=True, callbacks=[Terminated()])
    assert made.train().global_step == 3
    assert unibody.get_last_checkpoint(made.args.output_dir).endswith("checkpoint-3")
    assert signal.getsignal(signal.SIGTERM) is before
