"""Learning rates are transformers', step by step, past the end too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import unibody
from unibody import SchedulerType, get_scheduler

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}],
    "cosine": [{}, {"num_cycles": 1.5}],
    "cosine_with_restarts": [{}, {"num_cycles": 3}],
    "polynomial": [{}, {"power": 2.0, "lr_end": 1e-3}],
    "constant": [{}],
    "constant_with_warmup": [{}],
    "inverse_sqrt": [{}, {"timescale": 7}],
    "cosine_with_min_lr": [{"min_lr": 0.01}, {"min_lr_rate": 0.2, "num_cycles": 1.0}],
    "warmup_stable_decay": [
        {"num_decay_steps": 6},
        {"num_decay_steps": 6, "num_stable_steps": 4, "min_lr_ratio": 0.1, "decay_type": "linear"},
        {"num_decay_steps": 6, "decay_type": "1-sqrt", "warmup_type": "cosine", "min_lr_ratio": 0.2},
    ],
}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def rates(library_call: Any, name: str, warmup: int, options: dict[str, Any]) -> list[float]:
    made = optimizer()
    total = None if "num_stable_steps" in options else 20
    schedule, found = library_call(name, made, warmup, total, dict(options)), []
    for _ in range(24):
        found.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("name", OPTIONS)
def test_same_rates(name: str, warmup: int) -> None:
    for options in OPTIONS[name]:
        expected = rates(transformers.get_scheduler, name, warmup, options)
        assert rates(get_scheduler, name, warmup, options) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_name_is_compared() -> None:
    assert {*OPTIONS, "reduce_lr_on_plateau"} == set(SchedulerType)


def test_plateau() -> None:
    made = [optimizer(), optimizer()]
    options = {"factor": 0.5, "patience": 1}
    ours = get_scheduler("reduce_lr_on_plateau", made[0], scheduler_specific_kwargs=options)
    theirs = transformers.get_scheduler("reduce_lr_on_plateau", made[1], scheduler_specific_kwargs=options)
    for loss in (1.0, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0):
        ours.step(loss)
        theirs.step(loss)
        assert made[0].param_groups[0]["lr"] == made[1].param_groups[0]["lr"]
    assert made[0].param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize(
    ("name", "total", "options", "message"),
    [
        ("linaer", 20, {}, "'linaer' is no SchedulerType: choose one of linear, cosine, "),
        ("cosine", None, {}, "the schedule cosine ends with the run: give num_training_steps"),
        ("cosine", 20, {"cycles": 2}, "the schedule cosine does not take these lr_scheduler_kwargs: "),
        ("polynomial", 20, {"lr_end": 1.0}, "lr_end 1.0 must be below the learning rate 0.1"),
        ("cosine_with_min_lr", 20, {}, "needs one of min_lr and min_lr_rate"),
        ("warmup_stable_decay", 20, {}, "needs num_decay_steps"),
    ],
)
def test_wrong(name: str, total: int | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_scheduler(name, optimizer(), 0, total, options)


def test_a_step_that_is_not_taken(trainer) -> None:
    """A loss that float16's scale makes infinite leaves the weights and the rate as they are."""
    made = trainer(
        max_steps=3, fp16=True, optim="sgd", learning_rate=0.1,
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs.logits.float().sum() * 1e36,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    made.train()
    assert [log["learning_rate"] for log in made.state.log_history if "loss" in log] == [0.1] * 3
    assert all(torch.equal(old, new) for old, new in zip(before, made.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("get_constant_schedule", ()),
        ("get_constant_schedule_with_warmup", (3,)),
        ("get_linear_schedule_with_warmup", (3, 9)),
        ("get_cosine_schedule_with_warmup", (3, 9)),
        ("get_cosine_schedule_with_warmup", (3, 9, 1.5)),
    ],
)
def test_schedules_by_name(name: str, numbers: tuple[Any, ...]) -> None:
    found = []
    for library in (unibody, transformers):
        made = optimizer()
        schedule = getattr(library, name)(made, *numbers)
        found.append([])
        for _ in range(12):
            found[-1].append(made.param_groups[0]["lr"])
            made.step()
            schedule.step()
    assert found[0] == pytest.approx(found[1], rel=1e-12, abs=1e-15)
