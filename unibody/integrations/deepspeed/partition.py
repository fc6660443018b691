"""Weights under ZeRO-3 (1910.02054): each process keeps its part of each; loaded, made and gathered a few at a time.

A parameter that is partitioned has no elements. Its part is its `ds_tensor`, its shape `ds_shape`, and deepspeed gathers it
where a module that has it is called, or in the context `deepspeed.zero.GatheredParameters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.core.loading import read_tensors, tie_weights
from unibody.integrations.deepspeed.configuration import HfDeepSpeedConfig, current
from unibody.integrations.deepspeed.processes import start_deepspeed
from unibody.training.checkpoints import compare


def is_partitioned(model: nn.Module) -> bool:
    """Whether each process has only a part of the weights."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def parameter_dtype(config: HfDeepSpeedConfig) -> torch.dtype:
    """The type in which deepspeed holds the weights."""
    if config.get_value("fp16.enabled") is True:
        return torch.float16
    return torch.bfloat16 if config.get_value("bf16.enabled") is True else torch.float32


class Partition:
    """The hooks of loading by which each weight, as soon as it is read, is partitioned: no process ever holds all of them.

    Tied weights, and those that the checkpoint lacks, follow when all is read.
    """

    def __init__(self) -> None:
        config = current()
        assert config is not None
        self.dtype, deepspeed = parameter_dtype(config), start_deepspeed()
        self.zero = deepspeed.zero.Init(nn.Module(), config_dict_or_path=settings_of_zero(config), dtype=self.dtype)
        self.parts: dict[str, nn.Parameter] = {}

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """That of the configuration: deepspeed takes no other."""
        return self.dtype

    def preprocess_model(self, *, model: Any, **_: Any) -> None:
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.tied = {name for pair in model._tied_weights_keys.items() for name in pair}

    def check_quantized_param(self, model: Any, value: Tensor, name: str, tensors: dict[str, Tensor]) -> bool:
        """Whether this weight is partitioned now: it is one of the model's, and no other shares it."""
        return name not in self.tied and self.shapes.get(name) == value.shape

    def create_quantized_param(
        self, model: Any, value: Tensor, name: str, target_device: Any, tensors: dict[str, Tensor]
    ) -> None:
        self.parts[name] = nn.Parameter(
            value.to(self.dtype, copy=True)
        )  # the file itself is mapped, and must not change
        self.zero._convert_to_zero_parameters([self.parts[name]])

    def update_missing_keys_after_loading(self, model: Any, missing_keys: list[str], prefix: str) -> None:
        for name, part in self.parts.items():
            module, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(module), attribute, part)
        self.parts.clear()

    def postprocess_model(self, *, model: Any) -> None:
        """Partitions what is left; buffers, which are not partitioned, go to where the model computes."""
        self.zero._convert_to_zero_parameters(model.parameters())
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.zero.local_device)


def partition_instead(quantizer: Any, device_map: Any) -> Partition:
    """What loads a model under ZeRO-3. ValueError: a quantizer or a device map would have it otherwise."""
    if quantizer is not None:
        method = quantizer.quantization_config.quant_method
        raise ValueError(
            f"ZeRO-3 partitions plain weights, and {method} packs them: set zero_optimization.stage to 2, or load a plain checkpoint"
        )
    if device_map is not None:
        raise ValueError(f"ZeRO-3 gives each process its part of the weights: leave out device_map={device_map!r}")
    return Partition()


def settings_of_zero(config: HfDeepSpeedConfig) -> dict[str, Any]:
    """What partitioning has to know of the configuration, whose "auto" values may not be filled in yet."""
    zero = {name: value for name, value in config.config["zero_optimization"].items() if value != "auto"}
    return {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}


def make_partitioned(model_class: Any, config: Any) -> Any:
    """A model with random weights, each module of which is partitioned before the next one gets any."""
    partition = Partition()
    with torch.device("meta"):
        model = model_class(config)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu", dtype=partition.dtype)))
        model._init_weights(module)
        partition.zero._convert_to_zero_parameters(module.parameters(recurse=False))
    tie_weights(model)
    partition.postprocess_model(model=model)
    return model


@contextmanager
def gathered(parameters: Iterable[nn.Parameter], modifier_rank: int | None = None) -> Iterator[None]:
    """Where it is entered, by all processes, these parameters are whole; what `modifier_rank` changes, all get."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=modifier_rank):
        yield


def whole_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The state dict with all weights whole, on the CPU, where `keep`; every process calls it, and one module at a time is gathered."""
    wholes: dict[nn.Parameter, Tensor] = {}
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in wholes]
        if own:
            with gathered(own):
                wholes |= {p: p.detach().cpu().clone() if keep else p.detach() for p in own}
    if not keep:
        return {}
    names = dict(model.named_parameters(remove_duplicate=False))
    return {name: wholes[names[name]] if name in names else tensor for name, tensor in model.state_dict().items()}


def load_partitioned(model: nn.Module, folder: Path) -> None:
    """Fills a partitioned model with the weights of a checkpoint, one module at a time. ValueError: they are another model's."""
    stored = read_tensors(folder)
    state = model.state_dict() | dict(model.named_parameters(remove_duplicate=False))
    compare(model, folder, {name: tuple(tensor.shape) for name, tensor in stored.items()}, state)
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        names = {name: f"{prefix}.{name}" if prefix else name for name in own}
        own = {name: parameter for name, parameter in own.items() if names[name] in stored}
        if own:
            with gathered(own.values(), modifier_rank=0), torch.no_grad():
                if torch.distributed.get_rank() == 0:
                    for name, parameter in own.items():
                        parameter.copy_(stored[names[name]])
        for name, buffer in module.named_buffers(recurse=False):
            key = f"{prefix}.{name}" if prefix else name
            if key in stored:
                buffer.copy_(stored[key])
