"""The values that options of a training run may have; each is a string too."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Choice(StrEnum):
    """A string of a fixed list; an error names the list."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise ValueError(f"{value!r} is no {cls.__name__}: choose one of {', '.join(cls)}")


class IntervalStrategy(Choice):
    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class SaveStrategy(Choice):
    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"


class SchedulerType(Choice):
    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    INVERSE_SQRT = "inverse_sqrt"
    REDUCE_ON_PLATEAU = "reduce_lr_on_plateau"
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    WARMUP_STABLE_DECAY = "warmup_stable_decay"


class OptimizerNames(Choice):
    ADAMW_TORCH = "adamw_torch"
    ADAMW_TORCH_FUSED = "adamw_torch_fused"
    ADAFACTOR = "adafactor"
    SGD = "sgd"
    ADAGRAD = "adagrad"
    RMSPROP = "rmsprop"


class HubStrategy(Choice):
    END = "end"
    EVERY_SAVE = "every_save"


class SamplingStrategy(Choice):
    RANDOM = "random"
    SEQUENTIAL = "sequential"
    GROUP_BY_LENGTH = "group_by_length"


class TokenCount(Choice):
    """What `include_num_input_tokens_seen` counts."""

    NO = "no"
    ALL = "all"
    NON_PADDING = "non_padding"


class NonFinite(Choice):
    """What happens at a step whose loss or gradient is not a finite number."""

    STOP = "stop"
    SKIP = "skip"
    IGNORE = "ignore"


class WrapPolicy(Choice):
    """How FSDP cuts a model into units: by the classes of layers, by their sizes, or not at all."""

    TRANSFORMER = "TRANSFORMER_BASED_WRAP"
    SIZE = "SIZE_BASED_WRAP"
    NONE = "NO_WRAP"


class StateDictType(Choice):
    """How FSDP writes checkpoints: as one process would, or each process its part."""

    FULL = "FULL_STATE_DICT"
    SHARDED = "SHARDED_STATE_DICT"
