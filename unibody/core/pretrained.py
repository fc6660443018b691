"""The base of all models: a module with its configuration, read from and written to checkpoint folders."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch import nn

from unibody.core.loading import initialize_weights, load_checkpoint
from unibody.core.saving import save_checkpoint


class PreTrainedModel(nn.Module):
    """A module with its configuration, read from and written to checkpoint folders in the Hub's format."""

    config_class: ClassVar[Any]
    base_model_prefix: ClassVar[str] = "model"  # where a model with a head keeps the model without one
    _tied_weights_keys: ClassVar[dict[str, str]] = {}  # the name of a weight -> the name of the weight that it shares

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **options: Any) -> Any:
        """The model of a checkpoint, in eval mode; the options are those of load_checkpoint."""
        return load_checkpoint(cls, folder_or_id, **options)

    def save_pretrained(self, folder: str | os.PathLike[str], max_shard_size: int | str = "5GB") -> None:
        save_checkpoint(self, folder, max_shard_size)

    def initialize(self, module: nn.Module, parameter: nn.Parameter) -> None:
        """Matrices from N(0, initializer_range²), scales one, biases and the row of the padding token zero."""
        if parameter.dim() > 1:
            parameter.normal_(std=self.config.initializer_range)
        else:
            parameter.fill_(parameter is not getattr(module, "bias", None))
        if getattr(module, "padding_idx", None) is not None:
            parameter[module.padding_idx] = 0

    def post_init(self) -> None:
        """Random weights for what this class adds to its base model, then ties."""
        inside = f"{self.base_model_prefix}."
        initialize_weights(self, {name for name, _ in self.named_parameters() if not name.startswith(inside)})
        self.tie_weights()

    def tie_weights(self) -> None:
        for name, source in self._tied_weights_keys.items() if self.config.tie_word_embeddings else ():
            module, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(module), attribute, self.get_parameter(source))

    @property
    def base_model(self) -> Any:
        return getattr(self, self.base_model_prefix, self)

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
