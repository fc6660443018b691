"""The library editions of models and configurations: the generated classes, with what the library can do for them."""

from __future__ import annotations

import os
from typing import Any

import unibody
from unibody.core.hub import read_json
from unibody.dynamic_modules import custom_object_save
from unibody.editions import Recognised
from unibody.hub import locate
from unibody.integrations.peft import PeftAdapterMixin
from unibody.model_card import adapter_card
from unibody.publishing import PushToHubMixin
from unibody.quantization import find_quantizer


class PreTrainedConfig(PushToHubMixin, metaclass=Recognised):
    """The base of all configurations of models; those of generated files are instances too."""

    recognised_by = ("model_type", "from_dict", "to_dict", "save_pretrained", "num_labels")

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **options: Any) -> Any:
        """The configuration of a checkpoint; `revision`, `token`, `subfolder` and the like are for the Hub."""
        folder = locate(folder_or_id, options, weights=False)
        return super().from_pretrained(folder, **options)  # type: ignore[misc]


class PreTrainedModel(PeftAdapterMixin, PushToHubMixin, metaclass=Recognised):
    """The base of all models; those of generated files are instances too."""

    recognised_by = ("config_class", "from_pretrained", "save_pretrained", "base_model", "post_init")
    name_or_path: str = ""  # where its checkpoint came from

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
        """Writes the checkpoint, or of a model with adapters the active adapter alone.

        With `ship_code`, also the one file that the class needs, which anyone may load the checkpoint with.
        """
        if self._hf_peft_config_loaded:
            self._save_adapter(folder)
            return
        if ship_code:
            custom_object_save(self, folder, self.config)  # type: ignore[attr-defined]
        super().save_pretrained(folder, **options)  # type: ignore[misc]

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        if not self._hf_peft_config_loaded:
            return super()._model_card(repo_id, tags)
        config: Any = self.config  # type: ignore[attr-defined]
        return adapter_card(repo_id, config.to_dict(), type(self).__name__, self.name_or_path, tags)


def adopt(model: Any) -> Any:
    """The same object as an instance of its class's library edition: with `push_to_hub` and the rest. TypeError: it has none."""
    edition = getattr(unibody, type(model).__name__, None)
    if edition is None or not issubclass(edition, PreTrainedModel):
        raise TypeError(f"{type(model).__name__} is not a class of a generated file that the registry lists")
    if isinstance(model, edition):
        return model
    if type(model) not in edition.__bases__:
        raise TypeError(
            f"{type(model).__name__} of {type(model).__module__} is another class than unibody's of this name"
        )
    model.__class__ = edition
    return model
