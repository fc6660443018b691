"""The same run as transformers' Trainer: losses, gradient norms, learning rates, weights and the order of events."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers

import unibody
from training.rows import rows
from unibody.training.callbacks import EVENTS

CLOSE = 1e-5
RUNS = {
    "sgd": {"optim": "sgd", "learning_rate": 0.1},
    "sgd-clipped": {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.2, "weight_decay": 0.1},
    "adamw": {"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.1},
    "adamw-accumulated": {
        "optim": "adamw_torch", "learning_rate": 1e-3, "gradient_accumulation_steps": 3, "lr_scheduler_type": "cosine",
        "warmup_steps": 0.25, "max_grad_norm": 0.5,
    },
    "fused": {"learning_rate": 1e-3, "gradient_accumulation_steps": 2, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5},
    "data-seed": {"optim": "sgd", "learning_rate": 0.1, "data_seed": 7, "seed": 3, "dataloader_drop_last": True},
    "no-clip": {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "num_train_epochs": 0.7, "max_steps": -1},
}  # fmt: skip


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_same_curve(trainer, settings: dict[str, Any]) -> None:
    settings = {"max_steps": 20, **settings}
    ours, theirs = trainer(unibody, **settings), trainer(transformers, **settings)
    mine, other = ours.train(), theirs.train()
    assert mine.global_step == other.global_step >= 18
    assert mine.training_loss == pytest.approx(other.training_loss, abs=CLOSE)
    mine_logs, other_logs = ours.state.log_history, theirs.state.log_history
    assert len(mine_logs) == len(other_logs) == mine.global_step + 1
    for found, expected in zip(mine_logs[:-1], other_logs[:-1], strict=True):
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=CLOSE, abs=CLOSE)
        assert found["learning_rate"] == pytest.approx(expected["learning_rate"], rel=1e-12)
    assert_same_weights(ours.model, theirs.model)


def assert_same_weights(ours: Any, theirs: Any) -> None:
    weights = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=CLOSE)


def test_bfloat16(trainer) -> None:
    """Under autocast the curve is the oracle's, as far as eight bits go, and the weights stay float32."""
    settings = {"max_steps": 10, "optim": "sgd", "learning_rate": 0.1}
    runs = [
        trainer(library, **settings, bf16=bf16)
        for library, bf16 in ((unibody, True), (transformers, True), (unibody, False))
    ]
    for run in runs:
        run.train()
    ours, theirs, full = ([log["loss"] for log in run.state.log_history[:-1]] for run in runs)
    assert ours == pytest.approx(theirs, abs=2e-3)
    assert ours[0] != full[0]
    assert next(runs[0].model.parameters()).dtype == torch.float32


FLOWS = {
    "steps": {"max_steps": 9, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4, "logging_steps": 3},
    "epochs": {"num_train_epochs": 2, "gradient_accumulation_steps": 4, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    "first": {"max_steps": 5, "logging_first_step": True, "logging_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "eval_delay": 3, "eval_on_start": True},
    "best": {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "best", "metric_for_best_model": "loss", "load_best_model_at_end": True},
    "shares": {"max_steps": 10, "eval_strategy": "steps", "eval_steps": 0.25, "save_strategy": "steps", "save_steps": 0.5, "logging_steps": 0.3},
    "silent": {"max_steps": 3, "logging_strategy": "no"},
}  # fmt: skip


@pytest.mark.parametrize("settings", FLOWS.values(), ids=FLOWS)
def test_same_events(trainer, settings: dict[str, Any]) -> None:
    """Every event, in order, at the same step, with the same flags and the same keywords."""
    seen: dict[str, list[Any]] = {}
    for library in (unibody, transformers):
        events = seen[library.__name__] = []

        def record(event: str, events: list[Any] = events) -> Any:
            def method(self: Any, args: Any, state: Any, control: Any, *rest: Any, **keywords: Any) -> None:
                names = ("should_log", "should_evaluate", "should_save", "should_training_stop")
                logs = {
                    name for name in keywords.get("logs", ()) if name not in ("total_flos", "train_tokens_per_second")
                }
                flags = [getattr(control, name) for name in names]
                events.append((event, state.global_step, round(state.epoch, 6), flags, sorted(keywords), sorted(logs)))

            return method

        recorder = type("Recorder", (library.TrainerCallback,), {event: record(event) for event in EVENTS})
        with warnings.catch_warnings():
            made = trainer(
                library, **{"save_total_limit": 1, **settings}, eval_dataset=rows(6, seed=2), callbacks=[recorder()]
            )
        made.train()
        made.predict(rows(3))
        assert made.state.log_history
    for mine, other in zip(seen["unibody"], seen["transformers"], strict=True):
        assert mine == other


def test_evaluation(trainer) -> None:
    """Loss and metrics of the whole, predictions in the data's order; a last batch is smaller."""

    def metrics(found: Any) -> dict[str, float]:
        logits, labels = found
        return {"right": (logits.argmax(-1)[:, :-1] == labels[:, 1:])[labels[:, 1:] != -100].mean()}

    made = [
        trainer(library, compute_metrics=metrics, per_device_eval_batch_size=4) for library in (unibody, transformers)
    ]
    ours, theirs = (one.predict(rows(10, seed=3)) for one in made)
    assert ours.predictions.shape == theirs.predictions.shape == (10, 12, 128)
    assert abs(ours.predictions - theirs.predictions).max() < CLOSE
    assert (ours.label_ids == theirs.label_ids).all()
    assert set(ours.metrics) == set(theirs.metrics) - {"test_model_preparation_time"}
    for name in ("test_loss", "test_right"):
        assert ours.metrics[name] == pytest.approx(theirs.metrics[name], abs=CLOSE)


def test_resumes_from_the_oracles_checkpoint(trainer) -> None:
    """A run that transformers began goes on here as it would have gone on there."""
    settings = {
        "max_steps": 12,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 5,
    }
    theirs = trainer(transformers, **settings)
    theirs.train()
    ours = trainer(unibody, **settings)
    with pytest.warns(UserWarning, match=r"checkpoint-5/rng_state\.pth is not there, or not this library's"):
        ours.train(resume_from_checkpoint=f"{theirs.args.output_dir}/checkpoint-5")
    assert [log["step"] for log in ours.state.log_history] == [*range(1, 13), 12]
    assert_same_weights(ours.model, theirs.model)
