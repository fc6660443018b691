"""Adapters on a model (LoRA and the other methods that change layers), through the `peft` package.

peft, and transformers which it needs, are imported when an adapter is first added or loaded, and not before.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from unibody.integrations.availability import require

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "default"  # the name of an adapter to which none was given


class AdapterLoadingInfo(NamedTuple):
    """The keys in which an adapter's file and the model differ; both empty where all is well."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class PeftAdapterMixin:
    """Adapters by name, of which the active ones take part in the forward pass.

    The names and files are those of the field. The base model is frozen when the first adapter comes; it stays in place, and
    wherever it is packed it stays packed.
    """

    peft_config: dict[str, Any]
    _hf_peft_config_loaded: bool = False

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Adds a new adapter and makes it the active one, to be trained.

        ValueError: the name is taken, no layer matches `target_modules`, or the method is one of prompts, which change no layer.
        """
        require("peft", "add_adapter")
        from peft import PeftConfig

        if not isinstance(adapter_config, PeftConfig):
            found = type(adapter_config).__name__
            raise TypeError(
                f"adapter_config is {found}, expected a configuration of peft, such as peft.LoraConfig(r=8)"
            )
        name = adapter_name or DEFAULT
        self._inject(adapter_config, name)
        set_active(self, [name])

    def load_adapter(
        self,
        peft_model_id: str | os.PathLike[str] | None = None,
        adapter_name: str | None = None,
        *,
        peft_config: Any = None,
        adapter_state_dict: dict[str, Tensor] | None = None,
        is_trainable: bool = False,
        low_cpu_mem_usage: bool = False,
        **hub: Any,
    ) -> AdapterLoadingInfo:
        """Loads an adapter from a folder or the Hub's repository, makes it the active one, and says which keys differ.

        `revision`, `token`, `subfolder`, `cache_dir`, `local_files_only` and `force_download` are for the Hub. Instead of files,
        a configuration and tensors may be given. Unless `is_trainable`, it is frozen. HubError: the files are not to be had;
        ValueError: they do not fit this model, which is as it was.
        """
        require("peft", "load_adapter")
        from peft.utils import set_peft_model_state_dict

        from unibody.integrations.adapter_files import PREFIX, read_adapter

        name, source = adapter_name or DEFAULT, "adapter_state_dict" if peft_model_id is None else str(peft_model_id)
        if peft_model_id is not None:
            stored, state = read_adapter(peft_model_id, hub)
            config = peft_config or stored
        elif peft_config is None or adapter_state_dict is None:
            raise ValueError("name an adapter's folder or repository, or give both peft_config and adapter_state_dict")
        else:
            config, state = peft_config, adapter_state_dict
        state = {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}
        config.inference_mode = not is_trainable
        self._inject(config, name, low_cpu_mem_usage=low_cpu_mem_usage)
        try:
            found: Any = set_peft_model_state_dict(self, state, adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage)
            expected = set(self.get_adapter_state_dict(name))
            if not expected & state.keys():
                raise KeyError(f"it has {min(state, default='nothing')}, and this model asks for {min(expected)}")
        except (KeyError, RuntimeError) as error:
            self._discard(name)
            raise ValueError(f"{source} is an adapter for another model than this: {error}") from error
        set_active(self, [name], inference_mode=not is_trainable)
        return AdapterLoadingInfo(sorted(expected - state.keys()), list(found.unexpected_keys))

    def set_adapter(self, adapter_name: list[str] | str) -> None:
        """Makes this adapter, or these, the active ones; they can be trained, all others are frozen."""
        names = self._require_adapters(adapter_name)
        set_active(self, names)

    def enable_adapters(self) -> None:
        """Lets the active adapters take part again."""
        self._require_adapters()
        for layer in tuner_layers(self):
            layer.enable_adapters(enabled=True)

    def disable_adapters(self) -> None:
        """Leaves the base model alone, until `enable_adapters`."""
        self._require_adapters()
        for layer in tuner_layers(self):
            layer.enable_adapters(enabled=False)

    def active_adapters(self) -> list[str]:
        """The names of the adapters that take part in the forward pass."""
        self._require_adapters()
        active = next(tuner_layers(self)).active_adapter
        return [active] if isinstance(active, str) else list(active)

    def delete_adapter(self, adapter_names: list[str] | str) -> None:
        """Removes adapters; after the last one, the layers are those from before the first."""
        for name in self._require_adapters(adapter_names):
            self._discard(name)

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of an adapter, by default of the active one; their names are without the adapter's."""
        (name,) = self._require_adapters(adapter_name or self._active_adapter())
        from peft.utils import get_peft_model_state_dict

        return dict(get_peft_model_state_dict(self, state_dict, name, save_embedding_layers=False))

    def merge_and_unload(self) -> Any:
        """The model with its active adapters in its weights, and without any adapter; packed weights are rounded again.

        ValueError: an adapter cannot be merged; nothing has changed.
        """
        self._require_adapters()
        layers = list(tuner_layers(self))
        try:
            for layer in layers:
                layer.merge(safe_merge=True)
        except ValueError:
            for layer in layers:
                if layer.merged:
                    layer.unmerge()
            raise
        unwrap(self, lambda layer: False)
        self._forget_adapters()
        return self

    def prepare_inputs_for_generation(self, input_ids: Tensor, past_key_values: Any = None, **options: Any) -> Any:
        """The arguments of the next forward call of a generation: of the tokens [B, S] those that the cache does not hold."""
        past = 0 if past_key_values is None else past_key_values.length
        return {"input_ids": input_ids[:, past:], "past_key_values": past_key_values, **options}

    def _save_adapter(self, folder: str | os.PathLike[str]) -> None:
        from unibody.integrations.adapter_files import write_adapter

        name = self._active_adapter()
        write_adapter(folder, self.peft_config[name], self.get_adapter_state_dict(name))

    def _inject(self, config: Any, name: str, **options: Any) -> None:
        """Puts an adapter's layers into the model. ValueError: the name is taken, or no layer matches; nothing has changed."""
        from peft import inject_adapter_in_model

        from unibody.integrations.packed_lora import packed_classes, register_packed_layers, with_weights

        model: Any = self
        if getattr(model, "parallelism", None) is not None:
            raise ValueError(
                "adapters go beside whole layers, and these are split over processes: load the model without tp_plan"
            )
        if self._hf_peft_config_loaded and name in self.peft_config:
            raise ValueError(f"there is an adapter {name!r} already: give this one another adapter_name")
        if packed_classes(model) and not hasattr(config, "_register_custom_module"):
            raise ValueError(
                f"{type(config).__name__} has no layer for packed weights: use LoRA, or dequantize the model"
            )
        config.base_model_name_or_path = config.base_model_name_or_path or getattr(self, "name_or_path", "") or None
        self._hf_peft_config_loaded = True
        with with_weights(model), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # as there should be
            try:
                inject_adapter_in_model(register_packed_layers(config, model), model, name, **options)
            except Exception:
                self._discard(name)
                raise

    def _discard(self, name: str) -> None:
        """Takes out what there is of an adapter; if it was the only active one, the first of the others is active now."""
        from peft.functional import delete_adapter
        from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

        configs = vars(self).get("peft_config", {})
        config = configs.pop(name, None)
        if configs and name in (active := self.active_adapters()):
            set_active(self, [other for other in active if other != name] or [next(iter(configs))])
        if config is not None:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "Adapter .* was active which is now deleted"
                )  # the last one of a layer
                delete_adapter(self, name, prefix=PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type])  # type: ignore[arg-type]
        unwrap(self, layer_has_adapters)
        if not configs:
            self._forget_adapters()

    def _forget_adapters(self) -> None:
        vars(self).pop("peft_config", None)
        self._hf_peft_config_loaded = False

    def _require_adapters(self, names: list[str] | str | None = None) -> list[str]:
        """The names as a list. ValueError: there is no such adapter, or none at all."""
        there = vars(self).get("peft_config", {})
        if not there:
            raise ValueError("the model has no adapter: add one with add_adapter or load_adapter")
        asked = [names] if isinstance(names, str) else list(names or ())
        for name in asked:
            if name not in there:
                raise ValueError(f"there is no adapter {name!r}: the model has {', '.join(there)}")
        return asked

    def _active_adapter(self) -> str:
        """The one that is active. ValueError: there are several."""
        active = self.active_adapters()
        if len(active) != 1:
            raise ValueError(f"{len(active)} adapters are active ({', '.join(active)}): choose one with set_adapter")
        return active[0]


def tuner_layers(model: Any) -> Iterator[Any]:
    """The layers that peft has put in the place of others."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def set_active(model: Any, names: list[str], inference_mode: bool = False) -> None:
    from peft.functional import set_adapter

    set_adapter(model, names, inference_mode=inference_mode)


def layer_has_adapters(layer: Any) -> bool:
    names = layer._adapters if hasattr(layer, "_adapters") else layer._all_available_adapter_names()
    return bool(names)


def unwrap(model: Any, is_kept: Callable[[Any], bool]) -> None:
    """Puts the layers of the model in the place of those of peft that are not kept."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    from unibody.core.quantization.replacement import set_module

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and not is_kept(module):
            set_module(model, name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper) and not is_kept(module):
            set_module(model, name, module.original_module)
