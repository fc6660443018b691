"""Wrong settings, data, checkpoints and losses: an error that names the value and the remedy."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unibody
from training.rows import rows


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"learning_rat": 1}, TypeError, r"^TrainingArguments has no 'learning_rat': do you mean learning_rate\?$"),
        ({"evaluation_strategy": "steps"}, TypeError, r"no 'evaluation_strategy': do you mean eval_strategy\?$"),
        ({"zzz": 1}, TypeError, "^TrainingArguments has no 'zzz'$"),
        ({"eval_strategy": "step"}, ValueError, "eval_strategy: 'step' is no IntervalStrategy: choose one of no, steps, epoch"),
        ({"optim": "adam"}, ValueError, "optim: 'adam' is no OptimizerNames: choose one of adamw_torch, "),
        ({"per_device_train_batch_size": 0}, ValueError, "per_device_train_batch_size is 0: it must be at least 1"),
        ({"logging_steps": 0}, ValueError, "logging_steps is 0: write a whole number"),
        ({"save_steps": 2.5}, ValueError, "save_steps is 2.5: write a whole number"),
        ({"fsdp": True, "parallelism_config": {"tp_size": 2}}, ValueError, "fsdp and parallelism_config are both set, .* choose one"),
        ({"save_total_limit": 0}, ValueError, "save_total_limit is 0: keep at least 1"),
        ({"bf16": True, "fp16": True}, ValueError, "bf16 and fp16 are both set"),
        ({"load_best_model_at_end": True}, ValueError, "needs evaluations to compare: set eval_strategy"),
        ({"save_strategy": "best"}, ValueError, "save_strategy='best' needs evaluations to compare"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch"}, ValueError,
            "save_strategy is 'steps' and eval_strategy 'epoch'; make them equal",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 4}, ValueError,
            "save_steps 4 is no multiple of eval_steps 3",
        ),
    ],
)  # fmt: skip
def test_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        unibody.TrainingArguments("out", **settings)


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_strategy": "steps"}, "eval_strategy is 'steps', and there is no eval_dataset: give one"),
        ({"report_to": "tensorbord"}, "report_to names 'tensorbord', which is no tracker: do you mean 'tensorboard'"),
        ({"model_init": nn.Module, "model": nn.Module()}, "needs either a model or model_init"),
        (
            {"model": Nothing(), "gradient_checkpointing": True},
            "Nothing has neither gradient_checkpointing_enable nor layers",
        ),
    ],
)
def test_trainer(trainer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_dataset": None}, "there is nothing to train on: give a train_dataset"),
        ({"train_dataset": []}, "an epoch of train_dataset has no batch: it is empty"),
        ({"train_dataset": rows(3), "dataloader_drop_last": True, "per_device_train_batch_size": 4}, "dataloader_drop_last leaves none"),
        ({"model": Nothing(), "train_dataset": [{"x": torch.ones(2)}]}, "Nothing returned no loss for a batch of x: give the examples labels"),
        ({"train_dataset": [{"tokens": [1, 2]}]}, "the examples have no column that the model takes .*remove_unused_columns=False"),
        ({"optim": "sgd", "optim_args": {"momentun": 0.9}}, "SGD does not take these optim_args: .*momentun"),
        ({"callbacks": [unibody.EarlyStoppingCallback()]}, "needs to know which metric: set metric_for_best_model"),
        (
            {"metric_for_best_model": "f1", "eval_strategy": "steps", "eval_steps": 1, "eval_dataset": rows(2)},
            "metric_for_best_model is 'f1', which the evaluation does not give: it gives eval_loss",
        ),
    ],
)  # fmt: skip
def test_training(trainer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(max_steps=2, **settings).train()


def test_a_stream_needs_max_steps(trainer) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(rows(4))

    with pytest.raises(ValueError, match="train_dataset has no length: set max_steps"):
        trainer(train_dataset=Stream()).train()


def test_all_frozen(trainer, llama) -> None:
    model = llama.load().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of LlamaForCausalLM is trained: set requires_grad of some"):
        trainer(model=model, max_steps=1).train()


@pytest.fixture
def saved(trainer) -> Path:
    made = trainer(max_steps=2, save_strategy="steps", save_steps=2, optim="sgd")
    made.train()
    return Path(made.args.output_dir)


def test_no_checkpoint(trainer, saved: Path, tmp_path: Path) -> None:
    """Nothing is changed before the error."""
    made = trainer(max_steps=4, output_dir=tmp_path / "empty")
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"empty holds no checkpoint-<step> to resume from: start without"):
        made.train(resume_from_checkpoint=True)
    with pytest.raises(
        ValueError,
        match=r"nowhere is no checkpoint to resume from, it has no trainer_state\.json, optimizer\.pt, scheduler\.pt: name a folder",
    ):
        made.train(resume_from_checkpoint=tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=rf"it has no trainer_state\.json, optimizer\.pt, scheduler\.pt: name {saved}/checkpoint-2$"
    ):
        made.train(resume_from_checkpoint=saved)
    (saved / "checkpoint-2" / "optimizer.pt").unlink()
    with pytest.raises(
        ValueError, match=r"it has no optimizer\.pt: name a folder checkpoint-<step> that a trainer wrote with its"
    ):
        made.train(resume_from_checkpoint=saved / "checkpoint-2")
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.model.state_dict().items())
    assert not (tmp_path / "empty").exists()


def test_checkpoint_of_another_model(trainer, saved: Path) -> None:
    checkpoint = saved / "checkpoint-2"
    with pytest.raises(
        ValueError,
        match=r"is a checkpoint of another model than this Nothing: it lacks linear\.bias, linear\.weight; it has besides lm_head\.weight, ",
    ):
        trainer(model=Nothing(), max_steps=4).train(resume_from_checkpoint=checkpoint)
    config = unibody.LlamaConfig.from_pretrained(checkpoint)
    config.intermediate_size = 32
    with pytest.raises(
        ValueError, match=r"it differs in model\.layers\.\d\.mlp\.\w+\.weight: \[32, 64\] stored, \[32, 32\] wanted"
    ):
        trainer(model=unibody.LlamaForCausalLM(config), max_steps=4).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="checkpoint-2 has done 2 steps, and this run ends at 1"):
        trainer(max_steps=1, optim="sgd").train(resume_from_checkpoint=checkpoint)


def test_checkpoint_of_a_later_release(trainer, saved: Path) -> None:
    file = saved / "checkpoint-2" / "trainer_state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    for version in (99, "2.0"):
        file.write_text(json.dumps({**state, "format_version": version}), encoding="utf-8")
        with pytest.raises(
            ValueError, match=rf"trainer_state\.json has format_version {version}, and this release reads 1: update it"
        ):
            trainer(max_steps=4).train(resume_from_checkpoint=True)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trainer_state\.json is not valid JSON .*: fetch it again"):
        trainer(max_steps=4).train(resume_from_checkpoint=True)


def test_half_a_checkpoint_is_not_taken(trainer, saved: Path) -> None:
    """What a killed run leaves has another name, is no candidate, and goes."""
    shutil.copytree(saved / "checkpoint-2", saved / ".checkpoint-3.partial")
    (saved / ".checkpoint-3.partial" / "model.safetensors").unlink()
    made = trainer(max_steps=3, optim="sgd")
    assert made.train(resume_from_checkpoint=True).global_step == 3
    assert not (saved / ".checkpoint-3.partial").exists()


class Cracked(nn.Module):
    """A line whose loss is not a number where x is 13, and whose gradient is not where x is 14."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = (self.weight * x).sum() ** 2
        if (x == 13).any():
            loss = loss * math.nan
        if (x == 14).any():
            loss = loss + torch.sqrt(self.weight.sum() * 0.0)  # infinite derivative times zero
        return {"loss": loss}


def cracked(trainer: Any, place: float, **settings: Any) -> Any:
    data = [{"x": torch.tensor([1.0 + number / 10])} for number in range(12)]
    data[7] = {"x": torch.tensor([place])}
    return trainer(
        model=Cracked(), train_dataset=data, train_sampling_strategy="sequential", per_device_train_batch_size=1, max_steps=6,
        gradient_accumulation_steps=2, optim="sgd", learning_rate=1e-3, **settings,
    )  # fmt: skip


def test_nan_stops(trainer) -> None:
    made = cracked(trainer, 13)
    message = r"^step 4: the loss is nan in batch 7 of epoch 0: lower learning_rate, .*nan_strategy='skip'"
    with pytest.raises(unibody.NonFiniteLossError, match=message) as caught:
        made.train()
    assert isinstance(caught.value, unibody.UnibodyError)
    assert made.state.global_step == 3 and made.model.weight.isfinite().all()


def test_infinite_gradient_stops(trainer) -> None:
    made = cracked(trainer, 14)
    with pytest.raises(
        unibody.NonFiniteLossError,
        match=r"^step 4: the norm of the gradient is nan and the loss [\d.]+, in epoch 0, batches from 6 on",
    ):
        made.train()
    assert made.model.weight.isfinite().all()


def test_nan_is_skipped(trainer, caplog: pytest.LogCaptureFixture) -> None:
    made = cracked(trainer, 13, nan_strategy="skip")
    made.train()
    assert "step 4: the loss is nan in batch 7 of epoch 0: the step is left out" in caplog.text
    assert made.state.global_step == 6 and made.state.skipped_steps == 1
    assert made.model.weight.isfinite().all()
    assert [log["step"] for log in made.state.log_history if "loss" in log] == [1, 2, 3, 5, 6]


def test_nan_is_ignored(trainer) -> None:
    made = cracked(trainer, 13, nan_strategy="ignore")
    made.train()
    assert not made.model.weight.isfinite().all()
