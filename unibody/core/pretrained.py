"""The base of all models: a module with its configuration, read from and written to checkpoint folders."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.loading import load_checkpoint, tie_weights
from unibody.core.saving import save_checkpoint


class PreTrainedModel(nn.Module):
    """A module with its configuration, read from and written to folders in the Hub's format."""

    config_class: ClassVar[Any]
    base_model_prefix: ClassVar[str] = "model"  # the attribute by which a model with a head holds the one without
    _tied_weights_keys: ClassVar[dict[str, str]] = {}  # name of a weight -> name of the weight that it is, if tied
    _renamed_weights: ClassVar[dict[str, str]] = {}  # pattern of names in old checkpoints -> what replaces it

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def post_init(self) -> None:
        """Starting values for what this class adds to its base model; ties."""
        for module in self.children() if self.device.type != "meta" else ():
            if module is not self.base_model:
                module.apply(self._init_weights)
        tie_weights(self)

    def _init_weights(self, module: nn.Module) -> None:
        """Matrices from N(0, initializer_range²), scales 1, biases and the embedding of padding 0."""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1:
                parameter.data.fill_(name != "bias")
            else:
                parameter.data.normal_(std=self.config.initializer_range)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **options: Any) -> Any:
        """The model of a checkpoint, in eval mode; the options are those of load_checkpoint."""
        return load_checkpoint(cls, folder_or_id, **options)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        max_shard_size: int | str = "5GB",
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Writes the checkpoint, in files of at most this size, with the model's weights or with those of `state_dict`."""
        save_checkpoint(self, folder, max_shard_size, state_dict)

    @property
    def base_model(self) -> Any:
        return getattr(self, self.base_model_prefix, self)

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
