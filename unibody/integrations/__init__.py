"""What other packages do for this library: each is imported when it is used, and may be missing.

`availability.py` says which are there; every other module is one integration.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibody.integrations.availability import (
        MissingPackageError,
        is_accelerate_available,
        is_available,
        is_bitsandbytes_available,
        is_comet_available,
        is_deepspeed_available,
        is_gguf_available,
        is_mlflow_available,
        is_peft_available,
        is_tensorboard_available,
        is_trackio_available,
        is_wandb_available,
        require,
    )
    from unibody.integrations.bitsandbytes import replace_with_bnb_linear
    from unibody.integrations.deepspeed.arguments import HfTrainerDeepSpeedConfig
    from unibody.integrations.deepspeed.configuration import (
        HfDeepSpeedConfig,
        deepspeed_config,
        is_deepspeed_zero3_enabled,
        set_hf_deepspeed_config,
        unset_hf_deepspeed_config,
    )
    from unibody.integrations.deepspeed.initialization import deepspeed_init, deepspeed_load_checkpoint
    from unibody.integrations.export import DecodingStep
    from unibody.integrations.fsdp import is_fsdp_enabled, is_fsdp_managed_module
    from unibody.integrations.gguf import export_gguf
    from unibody.integrations.packed_lora import register_packed_layers
    from unibody.integrations.peft import AdapterLoadingInfo, PeftAdapterMixin
    from unibody.integrations.reporting import (
        get_available_reporting_integrations,
        get_reporting_integration_callbacks,
    )
    from unibody.integrations.reporting.comet import CometCallback
    from unibody.integrations.reporting.jsonl import JsonlCallback
    from unibody.integrations.reporting.mlflow import MLflowCallback
    from unibody.integrations.reporting.tensorboard import TensorBoardCallback
    from unibody.integrations.reporting.trackio import TrackioCallback
    from unibody.integrations.reporting.wandb import WandbCallback

__all__ = [
    "AdapterLoadingInfo",
    "CometCallback",
    "DecodingStep",
    "HfDeepSpeedConfig",
    "HfTrainerDeepSpeedConfig",
    "JsonlCallback",
    "MLflowCallback",
    "MissingPackageError",
    "PeftAdapterMixin",
    "TensorBoardCallback",
    "TrackioCallback",
    "WandbCallback",
    "deepspeed_config",
    "deepspeed_init",
    "deepspeed_load_checkpoint",
    "export_gguf",
    "get_available_reporting_integrations",
    "get_reporting_integration_callbacks",
    "is_accelerate_available",
    "is_available",
    "is_bitsandbytes_available",
    "is_comet_available",
    "is_deepspeed_available",
    "is_deepspeed_zero3_enabled",
    "is_fsdp_enabled",
    "is_fsdp_managed_module",
    "is_gguf_available",
    "is_mlflow_available",
    "is_peft_available",
    "is_tensorboard_available",
    "is_trackio_available",
    "is_wandb_available",
    "register_packed_layers",
    "replace_with_bnb_linear",
    "require",
    "set_hf_deepspeed_config",
    "unset_hf_deepspeed_config",
]

_PLACES = {  # the module below `unibody.integrations` of each name
    "availability": (
        *("MissingPackageError", "is_accelerate_available", "is_available", "is_bitsandbytes_available"),
        *("is_comet_available", "is_deepspeed_available", "is_gguf_available", "is_mlflow_available"),
        *("is_peft_available", "is_tensorboard_available", "is_trackio_available", "is_wandb_available", "require"),
    ),
    "bitsandbytes": ("replace_with_bnb_linear",),
    "deepspeed.arguments": ("HfTrainerDeepSpeedConfig",),
    "deepspeed.configuration": (
        *("HfDeepSpeedConfig", "deepspeed_config", "is_deepspeed_zero3_enabled"),
        *("set_hf_deepspeed_config", "unset_hf_deepspeed_config"),
    ),
    "deepspeed.initialization": ("deepspeed_init", "deepspeed_load_checkpoint"),
    "export": ("DecodingStep",),
    "fsdp": ("is_fsdp_enabled", "is_fsdp_managed_module"),
    "gguf": ("export_gguf",),
    "packed_lora": ("register_packed_layers",),
    "peft": ("AdapterLoadingInfo", "PeftAdapterMixin"),
    "reporting": ("get_available_reporting_integrations", "get_reporting_integration_callbacks"),
    "reporting.comet": ("CometCallback",),
    "reporting.jsonl": ("JsonlCallback",),
    "reporting.mlflow": ("MLflowCallback",),
    "reporting.tensorboard": ("TensorBoardCallback",),
    "reporting.trackio": ("TrackioCallback",),
    "reporting.wandb": ("WandbCallback",),
}


def _find(name: str) -> Any:
    """What `unibody.integrations.<name>` is when it is first asked for; remembered."""
    module = next((module for module, names in _PLACES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module 'unibody.integrations' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"unibody.integrations.{module}"), name)
    return value


if not TYPE_CHECKING:
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
