"""Quantization for users of the library: public bases, auto classes, and registration of one's own methods."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

import unibody
from unibody.core.hub import locate_checkpoint
from unibody.core.quantization import config as core_config
from unibody.core.quantization import quantizer as core_quantizer
from unibody.deprecation import deprecated
from unibody.editions import Recognised
from unibody.generated.registry import QUANTIZERS
from unibody.reading import read_bounded_json


class QuantizationMethod(StrEnum):
    """The values of `quant_method` in the field's checkpoints; those with a generated file are in the registry."""

    BITS_AND_BYTES = "bitsandbytes"
    GPTQ = "gptq"
    AWQ = "awq"
    AQLM = "aqlm"
    VPTQ = "vptq"
    QUANTO = "quanto"
    EETQ = "eetq"
    HIGGS = "higgs"
    HQQ = "hqq"
    COMPRESSED_TENSORS = "compressed-tensors"
    FBGEMM_FP8 = "fbgemm_fp8"
    TORCHAO = "torchao"
    BITNET = "bitnet"
    SPQR = "spqr"
    FP8 = "fp8"
    QUARK = "quark"
    AUTOROUND = "auto-round"


class AWQLinearVersion(StrEnum):
    """The values of `AwqConfig.version`, whose newer name is `format`."""

    GEMM = "gemm"
    GEMV = "gemv"
    EXLLAMA = "exllama"
    GEMV_FAST = "gemv_fast"
    LLM_AWQ = "llm-awq"


class AwqBackendPackingMethod(StrEnum):
    """The values of `AwqConfig.backend` that say who packed a checkpoint."""

    AUTOAWQ = "autoawq"
    LLMAWQ = "llm-awq"


_configs: dict[str, Any] = {}  # registered by users, by method
_quantizers: dict[str, Any] = {}


class QuantizationConfigMixin(core_config.QuantizationConfigMixin, metaclass=Recognised):
    """The base of all quantization configurations; those of generated files are instances too."""

    recognised_by = ("from_dict", "to_dict", "post_init", "loading_attributes")

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Sets the attributes that exist and checks them; returns the keyword arguments that are none."""
        known = {key: value for key, value in kwargs.items() if hasattr(self, key)}
        changed = copy.copy(self)
        vars(changed).update(known)
        changed.__post_init__()
        vars(self).update(vars(changed))
        return {key: value for key, value in kwargs.items() if key not in known}

    def get_loading_attributes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kernel", *self.loading_attributes)}

    def to_diff_dict(self) -> dict[str, Any]:
        """The keys whose values are not the default, and the method."""
        needed, usual = _needed_and_usual(self)
        values, always = usual.to_dict(), {"quant_method", *needed}
        return {k: v for k, v in self.to_dict().items() if k in always or k not in values or v != values[k]}

    def to_json_string(self, use_diff: bool = True) -> str:
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        Path(json_file_path).write_text(self.to_json_string(use_diff=False), encoding="utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string().rstrip()}"


class HfQuantizer(core_quantizer.HfQuantizer, metaclass=Recognised):
    """The base of all quantizers; those of generated files are instances too. Every hook may be overridden."""

    recognised_by = ("preprocess_model", "postprocess_model", "check_quantized_param", "create_quantized_param")
    requires_parameters_quantization = True  # whether plain weights can be quantized one by one, while loading
    required_packages: list[str] | None = None  # none: kernels of packages are used where they are installed

    def update_device_map(self, device_map: dict[str, Any] | None) -> dict[str, Any] | None:
        return device_map

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type of everything that is not packed."""
        return dtype

    @deprecated(since="0.1", removed_in="1.0", instead="call update_dtype")
    def update_torch_dtype(self, torch_dtype: torch.dtype) -> torch.dtype:
        """The former name of update_dtype."""
        return self.update_dtype(torch_dtype)

    def update_missing_keys_after_loading(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        return missing_keys

    def update_unexpected_keys(self, model: Any, unexpected_keys: list[str], prefix: str) -> list[str]:
        return unexpected_keys

    def adjust_max_memory(self, max_memory: dict[str | int, int | str]) -> dict[str | int, int | str]:
        """What `device_map="auto"` may use of each device, in bytes; less, where quantizing needs room beside the weights."""
        return max_memory

    def adjust_target_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type by whose size `device_map="auto"` counts the weights."""
        return dtype

    def get_special_dtypes_update(self, model: Any, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """The types of the tensors that stay plain, by name, for the same purpose."""
        plain = self.get_modules_to_not_convert(model)
        return {
            name: dtype for name, _ in model.named_parameters() if any(f".{module}." in f".{name}" for module in plain)
        }

    def get_cuda_warm_up_factor(self) -> int:
        """By what the bytes of the model in float16 are divided, to know how many are allocated ahead on a GPU."""
        return 4

    def update_tp_plan(self, config: Any) -> Any:
        """The configuration, with another plan of tensor parallelism where the packed layers need it."""
        return config

    def update_ep_plan(self, config: Any) -> Any:
        """The same of expert parallelism."""
        return config

    @property
    def is_compileable(self) -> bool:
        """Whether torch.compile takes the packed layers as they are; not promised of any method yet."""
        return False

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether gradients reach the inputs of the packed layers, so that adapters beside them can be trained."""
        return True


class AutoQuantizationConfig:
    """The configuration of a quantized checkpoint, by the `quant_method` that it says."""

    @classmethod
    def from_dict(cls, quantization_config_dict: dict[str, Any]) -> Any:
        """The configuration with these keys; `load_in_8bit` and `load_in_4bit` mean bitsandbytes where no method is said."""
        values = quantization_config_dict
        method = values.get("quant_method")
        if method is None and (values.get("load_in_8bit") or values.get("load_in_4bit")):
            method = "bitsandbytes"
        return _config_class(method).from_dict(values)

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], revision: str | None = None, **kwargs: Any) -> Any:
        """The configuration in a checkpoint's config.json; `kwargs` that it has are set."""
        file = locate_checkpoint(folder_or_id, revision) / "config.json"
        values = read_bounded_json(file).get("quantization_config")
        if not isinstance(values, dict):
            raise ValueError(f"{file} has no quantization_config: the checkpoint is not quantized")
        config = cls.from_dict(values)
        config.update(**kwargs)
        return config


class AutoHfQuantizer:
    """The quantizer of a configuration."""

    @classmethod
    def from_config(cls, quantization_config: Any, **kwargs: Any) -> Any:
        """A quantizer; `kwargs` are its own, such as `pre_quantized`."""
        if isinstance(quantization_config, dict):
            quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
        method = str(core_config.plain_value(quantization_config.quant_method))
        if method in _quantizers:
            return _quantizers[method](quantization_config, **kwargs)
        if method not in QUANTIZERS:
            raise ValueError(f"quant_method {method!r} has no quantizer: there are {_known(_quantizers)}")
        variants = QUANTIZERS[method]["quantizers"]
        if not variants:
            raise NotImplementedError(
                f"quant_method {method!r} has a configuration here and no layers yet: the checkpoint cannot be run; "
                f"those that can are {', '.join(name for name, entry in QUANTIZERS.items() if entry['quantizers'])}"
            )
        wanted = f"{method}_8bit" if getattr(quantization_config, "load_in_8bit", False) else f"{method}_4bit"
        return getattr(unibody, variants.get(method) or variants[wanted])(quantization_config, **kwargs)

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **kwargs: Any) -> Any:
        return cls.from_config(AutoQuantizationConfig.from_pretrained(folder_or_id, **kwargs))

    @staticmethod
    def merge_quantization_configs(quantization_config: Any, quantization_config_from_args: Any) -> Any:
        """The checkpoint's configuration, with the user's choices of how to run it; what it is cannot be chosen."""
        if isinstance(quantization_config, dict):
            quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
        given = quantization_config_from_args
        if isinstance(given, dict):
            given = AutoQuantizationConfig.from_dict(given)
        if given is not None:
            theirs, yours = (str(core_config.plain_value(c.quant_method)) for c in (quantization_config, given))
            if theirs != yours:
                raise ValueError(
                    f"the checkpoint is quantized with {theirs}, and quantization_config asks for {yours}: "
                    "leave it out, or start from the model's plain checkpoint"
                )
            _, usual = _needed_and_usual(given)
            names = ("kernel", *quantization_config.loading_attributes)
            values = {name: getattr(given, name, None) for name in names}
            chosen = {name: value for name, value in values.items() if value != getattr(usual, name, None)}
            vars(quantization_config).update(chosen)
            kept = f", except for {', '.join(chosen)}" if chosen else ""
            warnings.warn(
                f"the checkpoint is quantized already; its own quantization_config goes before yours{kept}",
                stacklevel=2,
            )
        return quantization_config


BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # older files of settings, and whose they are
OLDER = {"w_bit": "bits", "q_group_size": "group_size"}  # names in them


def find_quantizer(stored: dict[str, Any] | None, given: Any, folder: Path) -> Any:
    """The quantizer that a checkpoint's settings and the user's ask for; None if none does."""
    stored = find_settings(stored, folder)
    if stored is not None:
        return AutoHfQuantizer.from_config(
            AutoHfQuantizer.merge_quantization_configs(stored, given), pre_quantized=True
        )
    return None if given is None else AutoHfQuantizer.from_config(given, pre_quantized=False)


def find_settings(stored: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    """How a checkpoint is quantized: its `quantization_config`, or what it has instead; None: it is plain."""
    if stored is None and (file := folder / "quanto_qmap.json").is_file():
        stored = read_types(file)
    for file, method in ((folder / name, method) for name, method in BESIDE.items()):
        if stored is None and file.is_file():
            stored = {"quant_method": method, **{OLDER.get(k, k): v for k, v in read_bounded_json(file).items()}}
    return stored


def read_types(file: Path) -> dict[str, Any]:
    """The settings of a checkpoint in optimum-quanto's own form, of the types that its map has for each layer."""
    fields, layers = ("weights", "activations"), {}
    for name, entry in read_bounded_json(file).items():
        try:
            kinds = {field: str(entry[field]).removeprefix("q").removesuffix("_e4m3fn") for field in fields}
        except (KeyError, TypeError):
            raise ValueError(
                f"{file} is no map of layers to their types: {name} has {entry!r}: fetch it again"
            ) from None
        layers[name] = {field: None if kind == "none" else kind for field, kind in kinds.items()}
    if not layers:
        raise ValueError(f"{file} names no layers: fetch it again")
    usual = max(layers.values(), key=list(layers.values()).count)
    others = {name: types for name, types in layers.items() if types != usual}
    return {"quant_method": "quanto", **usual, "layer_config": others or None}


def register_quantization_config(method: str) -> Callable[[type], type]:
    """Decorates the configuration class of a method of one's own."""

    def register(config_class: type) -> type:
        _refuse(method, _configs, config_class, QuantizationConfigMixin)
        _configs[method] = config_class
        return config_class

    return register


def register_quantizer(name: str) -> Callable[[type], type]:
    """Decorates the quantizer class of a method of one's own."""

    def register(quantizer_class: type) -> type:
        _refuse(name, _quantizers, quantizer_class, HfQuantizer)
        _quantizers[name] = quantizer_class
        return quantizer_class

    return register


def _refuse(name: str, registered: dict[str, Any], found: type, base: type) -> None:
    if name in registered or name in QUANTIZERS:
        raise ValueError(f"the method {name!r} is registered already: choose another name")
    if not issubclass(found, base):
        raise TypeError(f"{found.__name__} must be a subclass of unibody.{base.__name__}")


def _needed_and_usual(config: Any) -> tuple[list[str], Any]:
    """The fields that have no default, and the configuration in which all others have theirs."""
    needed = [f.name for f in dataclasses.fields(config) if f.init and f.default is f.default_factory]  # both missing
    return needed, type(config)(**{name: getattr(config, name) for name in needed})


def _config_class(method: Any) -> Any:
    if method is None:
        raise ValueError(f"quantization_config has no quant_method: there are {_known(_configs)}")
    method = str(core_config.plain_value(method))
    if method in _configs:
        return _configs[method]
    if method not in QUANTIZERS:
        raise ValueError(f"quant_method {method!r} is not known: there are {_known(_configs)}")
    return getattr(unibody, QUANTIZERS[method]["config"])


def _known(registered: dict[str, Any]) -> str:
    return ", ".join(sorted({*QUANTIZERS, *registered}))
