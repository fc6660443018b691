"""What a trainer gives to DeepSpeed, and gets back from its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unibody.integrations.deepspeed.arguments import HfTrainerDeepSpeedConfig


def deepspeed_init(trainer: Any, num_training_steps: int, inference: bool = False) -> tuple[Any, Any]:
    """The optimizer and the schedule for `deepspeed.initialize`, each None where the configuration has a section for it.

    The trainer's configuration has all its values afterwards. With `inference` both are None. ValueError: values contradict the
    arguments, or inference without ZeRO-3, which alone partitions a model that is not trained.
    """
    config, args = trainer.args.hf_deepspeed_config, trainer.args
    if inference:
        settle_for_inference(config, args, trainer.model)
        return None, None
    config.trainer_config_finalize(args, trainer.model, num_training_steps)
    if has_section(config, "optimizer"):
        if trainer.optimizer is not None:
            raise ValueError("there is an optimizer in the DeepSpeed configuration, and one was given: leave out one")
        optimizer = None
    else:
        optimizer = trainer.create_optimizer()
        # DeepSpeed drops empty groups, which a schedule would miss.
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        config.config.setdefault("zero_allow_untested_optimizer", True)
        config.config.setdefault("zero_force_ds_cpu_optimizer", False)
    if has_section(config, "scheduler"):
        return optimizer, None
    return optimizer, None if optimizer is None else trainer.create_scheduler(num_training_steps, optimizer)


def settle_for_inference(config: HfTrainerDeepSpeedConfig, args: Any, model: Any) -> None:
    """Gives a configuration all its values, and takes from it what only training needs. ValueError: it is not ZeRO-3."""
    if not config.is_zero3():
        raise ValueError(
            "DeepSpeed's inference is for ZeRO-3: set zero_optimization.stage to 3, or evaluate without DeepSpeed"
        )
    for section in ("optimizer", "scheduler"):
        config.del_config_sub_tree(section)
    config.trainer_config_finalize(args, model, 0)


def has_section(config: HfTrainerDeepSpeedConfig, name: str) -> bool:
    return config.get_value(name) is not None


def deepspeed_load_checkpoint(
    deepspeed_engine: Any, checkpoint_path: str | Path, load_module_strict: bool = True
) -> None:
    """Fills an engine of DeepSpeed with the weights and the optimizer of `checkpoint-<step>`.

    ValueError: the folder has none that this engine can read.
    """
    if not any(Path(checkpoint_path).glob("global_step*")):
        raise ValueError(f"{checkpoint_path} holds no checkpoint of DeepSpeed, it has no global_step<N>: name another")
    path, _ = deepspeed_engine.load_checkpoint(
        str(checkpoint_path),
        load_module_strict=load_module_strict,
        load_optimizer_states=True,
        load_lr_scheduler_states=False,  # the trainer has it
    )
    if path is None:
        raise ValueError(f"DeepSpeed could not read {checkpoint_path}: its log says why")
