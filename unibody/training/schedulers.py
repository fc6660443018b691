"""Learning rates over a run: each function gives the factor of the rate at a step, from 0 on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from unibody.training.choices import SchedulerType


def constant(step: int, warmup: int) -> float:
    """Up over the warmup, then level."""
    return step / max(1, warmup) if step < warmup else 1.0


def linear(step: int, warmup: int, total: int) -> float:
    """Down to 0 at the last step."""
    return constant(step, warmup) if step < warmup else max(0.0, (total - step) / max(1, total - warmup))


def progress(step: int, warmup: int, total: int) -> float:
    """How much of what follows the warmup is done."""
    return (step - warmup) / max(1, total - warmup)


def cosine(step: int, warmup: int, total: int, num_cycles: float = 0.5, floor: float = 0.0) -> float:
    """Half a cosine, or so many waves (1608.03983, equation 5), above `floor`."""
    if step < warmup:
        return constant(step, warmup)
    wave = 0.5 * (1 + math.cos(2 * math.pi * num_cycles * progress(step, warmup, total)))
    return max(0.0, wave * (1 - floor) + floor)


def cosine_with_restarts(step: int, warmup: int, total: int, num_cycles: int = 1) -> float:
    """Half cosines, each from the full rate again (1608.03983, section 3)."""
    if step < warmup:
        return constant(step, warmup)
    done = progress(step, warmup, total)
    return 0.0 if done >= 1 else max(0.0, 0.5 * (1 + math.cos(math.pi * (num_cycles * done % 1))))


def polynomial(step: int, warmup: int, total: int, start: float, lr_end: float = 1e-7, power: float = 1.0) -> float:
    """From the rate `start` down to `lr_end` at the last step, and no lower."""
    if step < warmup:
        return constant(step, warmup)
    left = 1 - min(1.0, progress(step, warmup, total))
    return float(((start - lr_end) * left**power + lr_end) / start)


def inverse_sqrt(step: int, warmup: int, timescale: int) -> float:
    return constant(step, warmup) if step < warmup else 1 / math.sqrt((step + timescale - warmup) / timescale)


def warmup_stable_decay(
    step: int, warmup: int, stable: int, decay: int, min_lr_ratio: float = 0.0, num_cycles: float = 0.5,
    warmup_type: str = "linear", decay_type: str = "cosine",
) -> float:  # fmt: skip
    """Up, level for `stable` steps, down over `decay` steps to a share of the rate, which then stays (2404.06395)."""

    def shape(kind: str, done: float, cycles: float) -> float:
        if kind == "linear":
            return done
        if kind == "1-sqrt":
            return math.sqrt(done)
        if kind == "cosine":
            return 0.5 * (1 - math.cos(2 * math.pi * cycles * done))
        raise ValueError(f"{kind!r} is no shape of a schedule: choose one of linear, cosine, 1-sqrt")

    if step < warmup:
        return shape(warmup_type, step / max(1, warmup), 0.5) * (1 - min_lr_ratio) + min_lr_ratio
    if step < warmup + stable:
        return 1.0
    if step >= warmup + stable + decay:
        return min_lr_ratio
    factor = 1 - shape(decay_type, (step - warmup - stable) / max(1, decay), num_cycles)
    return max(0.0, factor * (1 - min_lr_ratio) + min_lr_ratio)


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> LRScheduler | ReduceLROnPlateau:
    """The scheduler of this name. ValueError: there is none, or it needs numbers of steps that are not given."""
    kind, options = SchedulerType(name), dict(scheduler_specific_kwargs or {})
    warmup, total, start = num_warmup_steps or 0, num_training_steps, optimizer.param_groups[0]["lr"]
    if kind == SchedulerType.REDUCE_ON_PLATEAU:
        return ReduceLROnPlateau(optimizer, **options)
    if kind == SchedulerType.CONSTANT:
        return schedule(optimizer, kind, constant, warmup=0, **options)
    if kind == SchedulerType.CONSTANT_WITH_WARMUP:
        return schedule(optimizer, kind, constant, warmup=warmup, **options)
    if kind == SchedulerType.INVERSE_SQRT:
        return schedule(optimizer, kind, inverse_sqrt, warmup=warmup, **{"timescale": warmup or 10_000, **options})
    if total is None and not (kind == SchedulerType.WARMUP_STABLE_DECAY and "num_stable_steps" in options):
        raise ValueError(f"the schedule {kind} ends with the run: give num_training_steps")
    if kind == SchedulerType.WARMUP_STABLE_DECAY:
        if "num_decay_steps" not in options:
            raise ValueError("warmup_stable_decay needs num_decay_steps, in lr_scheduler_kwargs")
        decay = options.pop("num_decay_steps")
        stable = options.pop("num_stable_steps", (total or 0) - warmup - decay)
        return schedule(optimizer, kind, warmup_stable_decay, warmup=warmup, stable=stable, decay=decay, **options)
    if kind == SchedulerType.POLYNOMIAL:
        if options.get("lr_end", 1e-7) >= start:
            raise ValueError(f"lr_end {options.get('lr_end', 1e-7)} must be below the learning rate {start}")
        return schedule(optimizer, kind, polynomial, warmup=warmup, total=total, start=start, **options)
    if kind == SchedulerType.COSINE_WITH_MIN_LR:
        floor = options.pop("min_lr_rate", None)
        least = options.pop("min_lr", None)
        if (floor is None) == (least is None):
            raise ValueError("cosine_with_min_lr needs one of min_lr and min_lr_rate, in lr_scheduler_kwargs")
        options["floor"] = least / start if floor is None else floor
        return schedule(optimizer, kind, cosine, warmup=warmup, total=total, **options)
    function = {"linear": linear, "cosine": cosine, "cosine_with_restarts": cosine_with_restarts}[kind]
    return schedule(optimizer, kind, function, warmup=warmup, total=total, **options)


def schedule(optimizer: Optimizer, kind: str, function: Callable[..., float], **options: Any) -> LambdaLR:
    try:
        return LambdaLR(optimizer, partial(function, **options))
    except TypeError as error:
        raise ValueError(f"the schedule {kind} does not take these lr_scheduler_kwargs: {error}") from error


def get_constant_schedule(optimizer: Optimizer) -> Any:
    """The rate as it is."""
    return get_scheduler(SchedulerType.CONSTANT, optimizer)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int) -> Any:
    """Up over the warmup, then level."""
    return get_scheduler(SchedulerType.CONSTANT_WITH_WARMUP, optimizer, num_warmup_steps)


def get_linear_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int) -> Any:
    """Up over the warmup, then down to 0 at the last step."""
    return get_scheduler(SchedulerType.LINEAR, optimizer, num_warmup_steps, num_training_steps)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5
) -> Any:
    """Up over the warmup, then half a cosine, or so many waves."""
    options = {"num_cycles": num_cycles}
    return get_scheduler(SchedulerType.COSINE, optimizer, num_warmup_steps, num_training_steps, options)
