"""The library editions of models and configurations: the generated classes, with what the library can do for them."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal, Self, overload

import torch
from torch import nn

import unibody
from unibody import deferral
from unibody.configuration import PreTrainedConfig
from unibody.core.attention import ATTENTION
from unibody.core.choices import choose
from unibody.deprecation import FORMER, rename_argument, warn_deprecated
from unibody.device_maps import main_device, require_device, single_device
from unibody.dynamic_modules import custom_object_save, settle_references
from unibody.editions import Recognised, file_class_of
from unibody.embeddings import EmbeddingsMixin
from unibody.hub import locate
from unibody.integrations.availability import require
from unibody.integrations.deepspeed.configuration import is_deepspeed_zero3_enabled
from unibody.integrations.fsdp import is_fsdp_managed_module
from unibody.integrations.peft import PeftAdapterMixin
from unibody.model_card import adapter_card
from unibody.model_types import class_names, find_class, named_class, with_mixin
from unibody.observing import observed
from unibody.placement import Placement, with_offloaded
from unibody.publishing import PushToHubMixin
from unibody.quantization import find_quantizer
from unibody.reading import read_bounded_json
from unibody.tailoring import LOADING, tailored, take_settings
from unibody.tensor_parallel.settings import settle_distribution
from unibody.training.recomputing import RecomputingMixin


def take_former_spellings(options: dict[str, Any], quantization_config: Any) -> Any:
    """Puts present names for what the ecosystem once called otherwise, with warnings; the quantization that they ask for."""
    rename_argument(options, "torch_dtype", "dtype", **FORMER)
    if "low_cpu_mem_usage" in options:
        instead = "leave it out, weights are always read without a second copy"
        warn_deprecated("low_cpu_mem_usage=", **FORMER, instead=instead)
        del options["low_cpu_mem_usage"]
    if options.pop("use_safetensors", None) is False:
        raise ValueError(
            "use_safetensors=False asks for pickled weights, which run code when they are read: leave it out"
        )
    options.pop("weights_only", None)
    asked = [name for name in ("load_in_8bit", "load_in_4bit") if name in options]
    for name in asked:
        instead = f"write quantization_config=BitsAndBytesConfig({name}=True)"
        warn_deprecated(f"{name}=", **FORMER, instead=instead)
    chosen = {name: True for name in asked if options.pop(name)}
    if chosen and quantization_config is not None:
        raise ValueError(f"{', '.join(chosen)} and quantization_config say the same twice: leave out the former")
    return {"quant_method": "bitsandbytes", **chosen} if chosen else quantization_config


class PreTrainedModel(
    PeftAdapterMixin, EmbeddingsMixin, RecomputingMixin, PushToHubMixin, nn.Module, metaclass=Recognised
):
    """The base of all models; those of generated files are instances too."""

    recognised_by = ("config_class", "from_pretrained", "save_pretrained", "base_model", "post_init")
    name_or_path: str = ""  # where its checkpoint came from
    _auto_class: ClassVar[str | None] = None  # of a class whose code goes with what is saved
    config: Any
    config_class: ClassVar[Any]
    hf_device_map: dict[str, Any]  # where its parts lie, if that was asked for
    parallelism: Any = None  # how it is split over processes
    tp_size: int | None = None  # over how many
    _tied_weights_keys: ClassVar[dict[str, str]]

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets `forward` take the options of the ecosystem's models that those of the files lack."""
        super().__init_subclass__(**options)
        forward: Any = getattr(cls, "forward", nn.Module.forward)
        if forward is not nn.Module.forward and not hasattr(forward, "__wrapped__"):
            cls.forward = observed(forward)

    @overload
    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, output_loading_info: Literal[False] = False, **options: Any
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, dict[str, set[str]]]: ...

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        config: Any = None,
        quantization_config: Any = None,
        device_map: Any = None,
        max_memory: dict[int | str, int | str] | None = None,
        offload_folder: str | os.PathLike[str] | None = None,
        offload_buffers: bool = False,
        tp_plan: Any = None,
        tp_size: int | None = None,
        device_mesh: Any = None,
        distributed_config: Any = None,
        **options: Any,
    ) -> Any:
        """The model of a checkpoint; a quantized one is read by its quantizer, a plain one quantized as `quantization_config` says.

        `device_map` is a device, a place for each module, or a plan such as "auto" (see plan_device_map), with `max_memory`; what
        goes to the disk goes to `offload_folder`. Under torchrun `tp_plan="auto"`, or a plan of one's own, splits the model over the
        processes, or over each `tp_size` neighbours of them, or those of a mesh. `dtype="auto"` is the type that config.json names, as if none were said.
        `config`, or fields of it such as `num_labels`, goes before what config.json says. `revision` (branch, tag or commit), `token`,
        `subfolder`, `cache_dir`, `local_files_only` and `force_download` are for the Hub; the others are those of the generated class.
        HubError: the repository, revision or file is not to be had. TypeError: there is no such option.
        """
        device = None
        distribution = settle_distribution(distributed_config, tp_plan, tp_size, device_mesh)
        if distribution is not None:
            if device_map is not None or options.get("device") is not None:
                raise ValueError(
                    "a plan of tensor parallelism says where each weight lies: leave out device and device_map"
                )
            options["device"] = distribution.device
        if device_map is not None:
            if options.get("device") is not None:
                raise ValueError(f"device={options['device']!r} and device_map say the same twice: leave out one")
            device = options["device"] = single_device(device_map)
            if device is None:
                require("accelerate", "a device_map with several devices")
        quantization_config = take_former_spellings(options, quantization_config)
        if options.get("dtype") == "auto":
            options["dtype"] = None
        if config is not None and options.get("attn_implementation") is None:
            options["attn_implementation"] = config.attn_implementation
        settings = take_settings(cls, cls.config_class, options, LOADING)
        made = cls if config is None and not settings else tailored(cls, config, settings)
        folder = locate(folder_or_id, options)
        if options.get("quantizer") is None:
            stored = read_bounded_json(folder / "config.json").get("quantization_config")
            if not isinstance(stored, dict | None):
                file = folder / "config.json"
                raise ValueError(f"{file} says quantization_config {stored!r}, expected an object of keys and values")
            options["quantizer"] = find_quantizer(stored, quantization_config, folder)
        placement = None
        if is_deepspeed_zero3_enabled():
            from unibody.integrations.deepspeed.partition import partition_instead

            options["quantizer"] = partition_instead(options["quantizer"], device_map)
        elif deferral.expected and options["quantizer"] is None and device_map is None and not options.get("device"):
            options["quantizer"] = deferral.Deferral()
        elif device_map is not None and device is None:
            placement = Placement(device_map, options["quantizer"], max_memory, offload_folder, offload_buffers)
            options["quantizer"] = placement
        elif distribution is not None:
            options["quantizer"] = distribution.loading(options["quantizer"])
        found = super(PreTrainedModel, made).from_pretrained(folder, **options)  # type: ignore[misc]
        model = found[0] if isinstance(found, tuple) else found
        model.__class__ = cls
        model.config.__class__ = with_mixin(type(model.config), PreTrainedConfig)
        if placement is not None:
            placement.dispatch(model)
        elif device is not None:
            model.hf_device_map = {"": device}
        model.name_or_path = str(folder_or_id)
        return found

    @classmethod
    def can_generate(cls) -> bool:
        """Whether it has `generate`."""
        return hasattr(cls, "generate")

    def get_decoder(self) -> Any:
        """The model without its head."""
        return self.base_model

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of weights, a tied one counted once, and of those of packed layers as if they were not packed."""
        left_out = self.get_input_embeddings().weight if exclude_embeddings else None
        plain = sum(
            w.numel() for w in self.parameters() if w is not left_out and (w.requires_grad or not only_trainable)
        )
        layers: list[Any] = [part for part in self.modules() if "in_features" in vars(part) and not part._modules]
        packed = sum(one.in_features * one.out_features for one in layers if "weight" not in one._parameters)
        return plain + (0 if only_trainable else packed)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """The bytes of all weights, as they are stored, and of buffers, among which are packed weights."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """From now on attention is computed so. ValueError: nothing is called that."""
        choose(ATTENTION, attn_implementation, "attn_implementation")
        self.config.attn_implementation = attn_implementation

    @property
    def device(self) -> torch.device:
        """Where inputs go: of a model with a device map, its first accelerator, or else the CPU."""
        if "_hf_hook" in vars(self):  # accelerate's, which brings inputs there
            return require_device(main_device(self.hf_device_map))
        found: torch.device = super().device  # type: ignore[misc]
        return found

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """All weights by name; those that are offloaded, from where they are."""
        state = super().state_dict(*arguments, **options)
        if "_hf_hook" in vars(self):
            with_offloaded(self, state, options.get("prefix", ""))
        return state

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        max_shard_size: int | str = "5GB",
        *,
        ship_code: bool = False,
        is_main_process: bool = True,
        save_function: Any = None,
        **options: Any,
    ) -> None:
        """Writes the checkpoint, or of a model with adapters the active adapter alone.

        With `ship_code`, also the one file that the class needs, which anyone may load the checkpoint with; a class of one's own
        that is registered, or that came with a checkpoint, always takes its code along. Of a model that is split
        over processes all of them call it, and the first writes the whole; of one that each has whole, those write that are
        `is_main_process`. `save_function` has no use: files are safetensors.
        """
        from unibody.integrations.deepspeed.partition import is_partitioned

        if is_partitioned(self) and "state_dict" not in vars(self):  # a trainer lends one that is whole
            raise ValueError(
                "ZeRO-3 keeps the weights in parts: save with the trainer's save_model, on all processes, or first gather them "
                "with deepspeed.zero.GatheredParameters into the state dict of another model"
            )
        if is_fsdp_managed_module(self):
            raise ValueError(f"this process has only shards of {type(self).__name__}: save it with trainer.save_model")
        if self.parallelism is not None and options.get("state_dict") is None:
            save_whole(self, folder, max_shard_size=max_shard_size, ship_code=ship_code, **options)
            return
        if not is_main_process:
            return
        if self._hf_peft_config_loaded:
            self._save_adapter(folder)
            return
        if "safe_serialization" in options:
            if not options["safe_serialization"]:
                raise ValueError(
                    "safe_serialization=False asks for pickled weights: they are written as safetensors only"
                )
            warn_deprecated("safe_serialization=", **FORMER, instead="leave it out, weights are always safetensors")
            del options["safe_serialization"]
        if ship_code or vars(named_class(type(self))).get("_auto_class"):
            custom_object_save(self, folder, self.config)
        else:
            settle_references(self.config, folder, self.name_or_path)
        super().save_pretrained(folder, max_shard_size, **options)  # type: ignore[misc]
        if self.config.architectures != [(name := named_class(type(self)).__name__)]:  # wrappers rename classes
            self.config.architectures = [name]
            self.config.save_pretrained(folder)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """From now on `save_pretrained` puts the class's module, and those that it imports beside it, next to what it writes."""
        if not auto_class.startswith("AutoModel") or auto_class not in unibody.__all__:
            raise ValueError(f"{auto_class!r} is no auto class of models, such as 'AutoModelForCausalLM'")
        cls._auto_class = auto_class

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Uploads what `save_pretrained` writes; of a model that is split over processes all call it, and the first uploads."""
        if self.parallelism is not None and torch.distributed.get_rank() > 0:
            save_whole(self, "")
            return None
        return super().push_to_hub(repo_id, **options)

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        if not self._hf_peft_config_loaded:
            return super()._model_card(repo_id, tags)
        config: Any = self.config
        return adapter_card(repo_id, config.to_dict(), type(self).__name__, self.name_or_path, tags)


def save_whole(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """Writes the checkpoint of a model that is split over processes, which all call it; the first writes."""
    from unibody.tensor_parallel.gathering import whole_state

    first = torch.distributed.get_rank() == 0
    state = whole_state(model, keep=first)
    if first:
        model.save_pretrained(folder, state_dict=state, **options)
    torch.distributed.barrier()


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
