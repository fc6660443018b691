"""The configuration of a trainer's run: what it leaves to the arguments is filled in, where it contradicts them it is refused."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from typing import Any

from unibody.integrations.deepspeed.configuration import HfDeepSpeedConfig

AUTO = "auto"
OF_THE_HIDDEN_SIZE: dict[str, Callable[[int], int]] = {  # elements of a bucket, by the hidden size H
    "zero_optimization.reduce_bucket_size": lambda size: size * size,
    "zero_optimization.stage3_prefetch_bucket_size": lambda size: int(0.9 * size * size),
    "zero_optimization.stage3_param_persistence_threshold": lambda size: 10 * size,
}


class HfTrainerDeepSpeedConfig(HfDeepSpeedConfig):
    """A configuration whose values may be "auto": they are the training arguments'; `mismatches` lists those that contradict them."""

    def __init__(self, config_file_or_dict: str | os.PathLike[str] | dict[str, Any]) -> None:
        super().__init__(config_file_or_dict)
        self.mismatches: list[str] = []
        self.filled: set[str] = set()  # the keys that were "auto"
        self._dtype: Any = None

    def dtype(self) -> Any:
        """The torch.dtype in which DeepSpeed holds the weights. ValueError: "auto" is not filled in yet."""
        if self._dtype is None:
            raise ValueError("the type is not known yet: call trainer_config_process(args) first")
        return self._dtype

    def is_auto(self, ds_key_long: str) -> bool:
        return bool(self.get_value(ds_key_long) == AUTO)

    def fill_match(self, ds_key_long: str, hf_val: Any, hf_key: str | None = None, must_match: bool = True) -> None:
        """Puts `hf_val` where the configuration says "auto"; remembers a mismatch where it says something else."""
        node, name = self.find_config_node(ds_key_long)
        if node is None or node.get(name) is None:
            return
        if node[name] == AUTO or ds_key_long in self.filled:
            node[name] = hf_val
            self.filled.add(ds_key_long)
        elif must_match and not same(node[name], hf_val):
            mismatch = f"{ds_key_long} is {node[name]!r}, and {hf_key} is {hf_val!r}"
            self.mismatches += [] if mismatch in self.mismatches else [mismatch]

    def fill_only(self, ds_key_long: str, hf_val: Any, hf_key: str | None = None) -> None:
        """Puts `hf_val` where the configuration says "auto"."""
        self.fill_match(ds_key_long, hf_val, hf_key, must_match=False)

    def trainer_config_process(self, args: Any, auto_find_batch_size: bool = False) -> None:
        """Fills in what the arguments know before there is a model."""
        import torch

        if args.use_cpu:
            os.environ["DS_ACCELERATOR"] = "cpu"  # before deepspeed is imported
        micro, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
        must = not auto_find_batch_size
        self.fill_match("train_micro_batch_size_per_gpu", micro, "per_device_train_batch_size", must)
        self.fill_match("gradient_accumulation_steps", accumulated, "gradient_accumulation_steps")
        whole = micro * accumulated * world_size()
        self.fill_match("train_batch_size", whole, "the batch of all processes", must)
        self.fill_match("gradient_clipping", args.max_grad_norm, "max_grad_norm")
        self.fill_match("optimizer.params.lr", args.learning_rate, "learning_rate")
        betas = [args.adam_beta1, args.adam_beta2]
        self.fill_match("optimizer.params.betas", betas, "[adam_beta1, adam_beta2]")
        self.fill_match("optimizer.params.eps", args.adam_epsilon, "adam_epsilon")
        self.fill_match("optimizer.params.weight_decay", args.weight_decay, "weight_decay")
        self.fill_only("scheduler.params.warmup_min_lr", 0)
        self.fill_match("scheduler.params.warmup_max_lr", args.learning_rate, "learning_rate")
        self.fill_match("fp16.enabled", args.fp16, "fp16")
        self.fill_only("fp16.auto_cast", False)
        self.fill_match("bf16.enabled", args.bf16, "bf16")
        for kind, chosen in (("fp16", args.fp16), ("bf16", args.bf16)):
            if chosen and self.get_value(f"{kind}.enabled") is None:
                self.config.setdefault(kind, {})["enabled"] = True
        half = torch.float16 if self.is_true("fp16.enabled") else torch.float32
        self._dtype = torch.bfloat16 if self.is_true("bf16.enabled") else half

    def trainer_config_finalize(self, args: Any, model: Any, num_training_steps: int) -> None:
        """Fills in what depends on the model and the length of the run.

        ValueError: all values that contradict the arguments, or that are still "auto".
        """
        if any(self.is_auto(key) for key in OF_THE_HIDDEN_SIZE) and (size := hidden_size(model)):
            for key, count in OF_THE_HIDDEN_SIZE.items():
                self.fill_only(key, count(size))
        self.fill_match("scheduler.params.total_num_steps", num_training_steps, "the number of steps")
        # At least one step: a warmup of none is a division by zero.
        warmup = max(1, args.get_warmup_steps(num_training_steps))
        self.fill_match("scheduler.params.warmup_num_steps", warmup, "the number of warmup steps")
        if self.mismatches:
            listed = "".join(f"\n- {mismatch}" for mismatch in self.mismatches)
            raise ValueError(
                f"the DeepSpeed configuration contradicts the TrainingArguments:{listed}\n"
                'make them equal, or write "auto" in the configuration'
            )
        if left := [key for key in dotted_keys(self.config) if self.is_auto(key)]:
            raise ValueError(
                f'the DeepSpeed configuration leaves {", ".join(left)} to nobody who knows: write a value instead of "auto"'
            )

    def completed(self, args: Any) -> dict[str, Any]:
        """A copy for DeepSpeed, which has what the configuration leaves out from the arguments."""
        found = copy.deepcopy(self.config)
        found.setdefault("train_micro_batch_size_per_gpu", args.per_device_train_batch_size)
        found.setdefault("gradient_accumulation_steps", args.gradient_accumulation_steps)
        found.setdefault("gradient_clipping", args.max_grad_norm)
        return found


def same(one: Any, other: Any) -> bool:
    """Whether two values of a configuration mean the same: numbers that differ by rounding do."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=1e-12)
    return bool(one == other)


def world_size() -> int:
    """How many processes there are, or are to be, as the launcher says."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


def hidden_size(model: Any) -> int | None:
    """The largest hidden size of a model, by its configuration; None: that names none."""
    config = getattr(model, "config", None)
    for part in (config, getattr(config, "text_config", None)):
        found: Any = getattr(part, "hidden_size", None) or max(getattr(part, "hidden_sizes", None) or (0,))
        if found:
            return int(found)
    return None


def dotted_keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys of all that is no object in a tree of objects."""
    found: list[str] = []
    for name, value in tree.items():
        found += dotted_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found
