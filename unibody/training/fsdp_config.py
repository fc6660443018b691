"""What `fsdp` and `fsdp_config` of the training arguments ask for: the ecosystem's names, read into one object."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from unibody import deferral
from unibody.integrations.fsdp import EFFICIENT_LOADING, IN_USE, YES
from unibody.training.choices import StateDictType, WrapPolicy

OPTIONS = ("full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2", "offload", "auto_wrap", "no_shard")
STRATEGIES = ("full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2")
SIZES = ("dp_replicate_size", "dp_shard_size")
PRECISION = ("param_dtype", "reduce_dtype", "output_dtype", "cast_forward_inputs")
KEYS = (
    *("version", "transformer_layer_cls_to_wrap", "min_num_params", "auto_wrap_policy", "reshard_after_forward"),
    *("cpu_offload", "offload_params", "cpu_ram_efficient_loading", "activation_checkpointing", "state_dict_type"),
    *("mixed_precision_policy", *SIZES),
)
# Settings of FSDP's first version, and the value that stands for what the second always does.
FIXED = {
    "use_orig_params": True,
    "sync_module_states": True,
    "limit_all_gathers": True,
    "forward_prefetch": False,
    "backward_prefetch": "backward_pre",
}
FOREIGN = {  # keys for another machine or version, and what to do
    "xla": "it is for TPUs, which this library does not drive: leave it out",
    "xla_fsdp_v2": "it is for TPUs, which this library does not drive: leave it out",
    "xla_fsdp_grad_ckpt": "it is for TPUs, which this library does not drive: leave it out",
    "xla_fsdp_settings": "it is for TPUs, which this library does not drive: leave it out",
    "sharding_strategy": "write fsdp='full_shard', 'shard_grad_op' or 'hybrid_shard'",
}
BY_LAUNCHER = (  # settings that `accelerate launch --use_fsdp` hands over, as FSDP_<NAME>
    *("version", "reshard_after_forward", "offload_params", "auto_wrap_policy", "min_num_params", "state_dict_type"),
    *("transformer_cls_to_wrap", "cpu_ram_efficient_loading", "activation_checkpointing"),
)
LAUNCHED = os.environ.get(IN_USE, "").lower() in YES  # before anything here says so, too


@dataclass(frozen=True)
class FsdpConfig:
    """How a model is sharded: in which units, over which processes, in which precision, and how it is stored."""

    reshard_after_forward: bool | int = True
    hybrid: bool = False  # shards are replicated: over machines, or as the sizes say
    dp_replicate_size: int | None = None
    dp_shard_size: int | None = None
    offload: bool = False
    auto_wrap_policy: WrapPolicy = WrapPolicy.TRANSFORMER
    layers: tuple[str, ...] = ()  # classes of the units; none: those that the model says
    min_num_params: int = 0
    cpu_ram_efficient_loading: bool = False
    activation_checkpointing: bool = False
    state_dict_type: StateDictType = StateDictType.FULL
    precision: tuple[tuple[str, Any], ...] = ()  # of MixedPrecisionPolicy

    @property
    def sharded_checkpoints(self) -> bool:
        return self.state_dict_type == StateDictType.SHARDED


def read_fsdp_config(fsdp: Any, fsdp_config: Any) -> FsdpConfig | None:
    """The settings; None: no FSDP is asked for. ValueError: an option or key that is unknown, contradicts others or is not possible."""
    options, given = read_options(fsdp), read_keys(fsdp_config)
    if not options:
        if given:
            warnings.warn("fsdp_config has no effect without fsdp: set fsdp=True", stacklevel=4)
        return None
    strategy = next((option for option in options if option in STRATEGIES), "full_shard")
    hybrid, resharding = strategy.startswith("hybrid"), strategy in ("full_shard", "hybrid_shard")
    layers = given.get("transformer_layer_cls_to_wrap") or ()
    least = int(given.get("min_num_params") or 0)
    policy = WrapPolicy(str(given.get("auto_wrap_policy") or ("SIZE" if least else "TRANSFORMER") + "_BASED_WRAP"))
    if least and layers:
        raise ValueError(
            "fsdp_config has transformer_layer_cls_to_wrap and min_num_params, two ways to cut a model: choose one"
        )
    if policy == WrapPolicy.SIZE and not least:
        raise ValueError("auto_wrap_policy SIZE_BASED_WRAP needs min_num_params, the parameters of a unit: set it")
    if any(given.get(name) is not None for name in SIZES) and not hybrid:
        raise ValueError(f"{' and '.join(SIZES)} are for shards that are replicated: set fsdp='hybrid_shard'")
    if int(given.get("version") or 2) != 2:
        raise ValueError(
            "fsdp_config: version 1 is torch's former FSDP, which this library does not drive: leave it out"
        )
    return FsdpConfig(
        reshard_after_forward=read_reshard(given.get("reshard_after_forward"), resharding),
        hybrid=hybrid,
        dp_replicate_size=given.get("dp_replicate_size"),
        dp_shard_size=given.get("dp_shard_size"),
        offload="offload" in options or flag(given, "cpu_offload") or flag(given, "offload_params"),
        auto_wrap_policy=policy,
        layers=tuple(layers.split(",")) if isinstance(layers, str) else tuple(layers),
        min_num_params=least,
        cpu_ram_efficient_loading=flag(given, "cpu_ram_efficient_loading"),
        activation_checkpointing=flag(given, "activation_checkpointing"),
        state_dict_type=StateDictType(str(given.get("state_dict_type") or StateDictType.FULL)),
        precision=read_precision(given.get("mixed_precision_policy") or {}),
    )


def announce_fsdp(config: FsdpConfig | None) -> None:
    """Lets the models that are loaded from now on leave their weights unread if they are to be; the environment says so, too."""
    late = config is not None and config.cpu_ram_efficient_loading
    deferral.expect(late)
    if config is not None:
        os.environ[IN_USE] = "true"
        os.environ[EFFICIENT_LOADING] = str(late).lower()
    elif not LAUNCHED:
        os.environ.pop(IN_USE, None)
        os.environ.pop(EFFICIENT_LOADING, None)


def launched_fsdp(fsdp: Any, fsdp_config: Any) -> tuple[Any, Any]:
    """The two settings; where they say nothing and accelerate's launcher was told to use FSDP, what it was told."""
    if fsdp is not None or not LAUNCHED:
        return fsdp, fsdp_config
    given = {name: os.environ[key] for name in BY_LAUNCHER if os.environ.get(key := f"FSDP_{name.upper()}")}
    if given.get("version") != "2":
        raise ValueError("accelerate launch asks for torch's former FSDP: pass --fsdp_version 2")
    if given.get("auto_wrap_policy") != WrapPolicy.SIZE:
        given.pop("min_num_params", None)  # it always has one
    if (layers := given.pop("transformer_cls_to_wrap", None)) is not None:
        given["transformer_layer_cls_to_wrap"] = layers
    return True, {**given, **(fsdp_config or {})}


def read_options(fsdp: Any) -> list[str]:
    """The options as a list of words; empty: none."""
    if isinstance(fsdp, bool | None):
        return ["full_shard"] if fsdp else []
    words = fsdp.replace(",", " ").split() if isinstance(fsdp, str) else [str(word) for word in fsdp]
    for word in words:
        if word not in OPTIONS:
            raise ValueError(f"fsdp has {word!r}: write True, or some of {', '.join(OPTIONS)}")
    if "no_shard" in words:
        raise ValueError("fsdp='no_shard' is a whole model on each process: leave fsdp out")
    if len(found := [word for word in words if word in STRATEGIES]) > 1:
        raise ValueError(f"fsdp has {' and '.join(found)}: choose one")
    return words


def read_keys(fsdp_config: Any) -> dict[str, Any]:
    """The keys of a dict or a JSON file, without `fsdp_` before them; those that are no keys or do nothing are refused or warned of."""
    if isinstance(fsdp_config, str | os.PathLike):
        file = Path(fsdp_config)
        try:
            fsdp_config = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(
                f"fsdp_config names {file}, which cannot be read ({error.strerror}): name a file"
            ) from error
        except ValueError as error:
            raise ValueError(f"fsdp_config names {file}, which is not JSON: {error}") from error
    if not isinstance(fsdp_config, Mapping | None):
        raise ValueError(f"fsdp_config is {type(fsdp_config).__name__}: write a dict, or the path of a JSON file")
    given = {str(key).removeprefix("fsdp_"): value for key, value in (fsdp_config or {}).items()}
    for key, value in given.items():
        if key in FOREIGN and value:
            raise ValueError(f"fsdp_config has {key}: {FOREIGN[key]}")
        if key in FIXED and value is not None and str(value).lower() != str(FIXED[key]).lower():
            warnings.warn(
                f"fsdp_config: {key}={value} has no effect, FSDP2 always works as if it were {FIXED[key]}",
                stacklevel=5,
            )
        if key not in (*KEYS, *FIXED, *FOREIGN):
            near = get_close_matches(key, KEYS, n=1, cutoff=0.5)
            remedy = f"do you mean {near[0]}?" if near else f"it may have {', '.join(KEYS)}"
            raise ValueError(f"fsdp_config has {key!r}, which is no setting: {remedy}")
    return {key: value for key, value in given.items() if key in KEYS}


def flag(given: Mapping[str, Any], key: str) -> bool:
    """A yes or no, which launchers write as words."""
    value = given.get(key)
    if isinstance(value, bool | None):
        return bool(value)
    if (word := str(value).lower()) not in ("true", "false"):
        raise ValueError(f"fsdp_config: {key} is {value!r}: write true or false")
    return word == "true"


def read_reshard(value: Any, default: bool) -> bool | int:
    """Whether a unit's weights are gathered again for the backward pass; a number: kept in shards of so many processes."""
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        return value
    return flag({"reshard_after_forward": value}, "reshard_after_forward")


def read_precision(given: Any) -> tuple[tuple[str, Any], ...]:
    """The fields of a MixedPrecisionPolicy; types by their names."""
    if not isinstance(given, Mapping):
        given = {"param_dtype": given, "reduce_dtype": given}
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key not in PRECISION:
            raise ValueError(f"fsdp_config: mixed_precision_policy has {key!r}: it may have {', '.join(PRECISION)}")
        if key != "cast_forward_inputs" and isinstance(value, str):
            short = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "no": "float32"}
            name, value = value, getattr(torch, short.get(value, value.removeprefix("torch.")), None)
            if not isinstance(value, torch.dtype):
                raise ValueError(f"fsdp_config: {key} {name!r} is no type of torch: write for example 'bfloat16'")
        found[key] = value
    return tuple(found.items())
