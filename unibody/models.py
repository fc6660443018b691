"""The library editions of models and configurations: the generated classes, with what the library can do for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from unibody.core.hub import read_json, require_repository
from unibody.dynamic_modules import custom_object_save
from unibody.editions import Recognised, file_class_of
from unibody.hub import fetch_checkpoint
from unibody.model_types import class_names, find_class, named_class
from unibody.publishing import PushToHubMixin
from unibody.quantization import find_quantizer

HUB_OPTIONS = ("cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder")


def locate(folder_or_id: str | os.PathLike[str], options: dict[str, Any], weights: bool = True) -> Path:
    """The folder of a checkpoint, fetched if it is a repository's; takes the Hub's options out of the others."""
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id, hub.get("subfolder") or "")
    require_repository(Path(folder_or_id))
    return fetch_checkpoint(str(folder_or_id), weights=weights, **hub)


class PreTrainedConfig(PushToHubMixin, metaclass=Recognised):
    """The base of all configurations of models; those of generated files are instances too."""

    recognised_by = ("model_type", "from_dict", "to_dict", "save_pretrained", "num_labels")

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **options: Any) -> Any:
        """The configuration of a checkpoint; `revision`, `token`, `subfolder` and the like are for the Hub."""
        folder = locate(folder_or_id, options, weights=False)
        return super().from_pretrained(folder, **options)  # type: ignore[misc]


class PreTrainedModel(PushToHubMixin, nn.Module, metaclass=Recognised):
    """The base of all models; those of generated files are instances too."""

    recognised_by = ("config_class", "from_pretrained", "save_pretrained", "base_model", "post_init")
    name_or_path: str = ""  # where its checkpoint came from
    config: Any

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, quantization_config: Any = None, **options: Any
    ) -> Any:
        """The model of a checkpoint; a quantized one is read by its quantizer, a plain one quantized as `quantization_config` says.

        `revision` (branch, tag or commit), `token`, `subfolder`, `cache_dir`, `local_files_only` and `force_download` are for the
        Hub; the others are those of the generated class. HubError: the repository, revision or file is not to be had.
        """
        folder = locate(folder_or_id, options)
        if options.get("quantizer") is None:
            stored = read_json(folder / "config.json").get("quantization_config")
            options["quantizer"] = find_quantizer(stored, quantization_config)
        found = super().from_pretrained(folder, **options)  # type: ignore[misc]
        model = found[0] if isinstance(found, tuple) else found
        model.name_or_path = str(folder_or_id)
        return found

    def save_pretrained(self, folder: str | os.PathLike[str], *, ship_code: bool = False, **options: Any) -> None:
        """Writes the checkpoint; with `ship_code`, also the one file that the class needs, which anyone may load it with."""
        if ship_code:
            custom_object_save(self, folder, self.config)
        super().save_pretrained(folder, **options)  # type: ignore[misc]
        if self.config.architectures != [(name := named_class(type(self)).__name__)]:  # wrappers rename classes
            self.config.architectures = [name]
            self.config.save_pretrained(folder)


def adopt(model: Any) -> Any:
    """The same object as an instance of its class's library edition: with `push_to_hub` and the rest. TypeError: it has none."""
    if PreTrainedModel in type(model).__mro__:
        return model
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    editions = [find_class(model_type, auto) for auto in class_names(model_type)]
    named = {edition.__name__: edition for edition in editions if issubclass(edition, PreTrainedModel)}
    edition = named.get(type(model).__name__)
    if edition is None:
        raise TypeError(
            f"{type(model).__name__} is not a class of a generated file that the registry lists or that is registered"
        )
    if type(model) is not file_class_of(edition):
        raise TypeError(
            f"{type(model).__name__} of {type(model).__module__} is another class than unibody's of this name"
        )
    model.__class__ = edition
    return model
