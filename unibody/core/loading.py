"""Reading checkpoint folders: safetensors, memory-mapped, assigned to a model that was built without memory."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibody.core.hub import locate_checkpoint

# Buffers that old checkpoints store and that every model computes.
COMPUTED_BUFFERS = ("rotary_emb.inv_freq", "position_ids", "attn.bias", "masked_bias")


def load_checkpoint(
    model_class: Any,
    folder_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    attn_implementation: str | None = None,
    quantizer: Any = None,
    output_loading_info: bool = False,
) -> Any:
    """A model with the weights of a checkpoint, in eval mode; with `output_loading_info` also the keys that differ.

    Without `dtype`, weights get the type that config.json names. On the CPU, and where that is the type in the file,
    they are not copied: they are the file, mapped. A `quantizer` is asked at each step, for the hooks that it has.
    """
    folder = locate_checkpoint(folder_or_id, revision)
    config = model_class.config_class.from_pretrained(folder)
    config.attn_implementation = attn_implementation or config.attn_implementation
    if quantizer is None and getattr(config, "quantization_config", None):
        method = config.quantization_config.get("quant_method")
        raise ValueError(f"{folder} is quantized ({method}): pass the quantizer that reads it, quantizer=…")
    dtype, device_map = as_dtype(dtype or config.dtype), {"": device or "cpu"}
    call_hook(quantizer, "validate_environment", None, dtype=dtype, device_map=device_map, weights_only=True)
    dtype = call_hook(quantizer, "update_dtype", dtype, dtype)
    with torch.device("meta"):
        model = model_class(config)
    call_hook(quantizer, "preprocess_model", None, model=model, device_map=device_map)

    loaded = dict(read_tensors(folder))
    expected = model.state_dict()
    names = set(call_hook(quantizer, "update_expected_keys", list(expected), model, list(expected), list(loaded)))
    state, unexpected, mismatched = {}, [], []
    prefix = f"{model.base_model_prefix}."
    for key, value in loaded.items():
        name = next((name for name in (key, prefix + key, key.removeprefix(prefix)) if name in names), key)
        if call_hook(quantizer, "check_quantized_param", False, model, value, name, loaded):
            quantizer.create_quantized_param(model, value, name, device_map[""], loaded)
            names.discard(name)
        elif name not in names:
            unexpected += [key] if not key.endswith(COMPUTED_BUFFERS) else []
        elif value.shape != expected[name].shape:
            mismatched.append(f"{key}: found {list(value.shape)}, expected {list(expected[name].shape)}")
        else:
            state[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if mismatched:
        raise ValueError(f"{folder}: shapes differ from those that config.json implies: " + "; ".join(mismatched))
    missing = sorted(names - state.keys() - share_tied_weights(model, state))
    missing = call_hook(quantizer, "update_missing_keys", missing, model, missing, prefix)
    unexpected = call_hook(quantizer, "update_unexpected_keys", unexpected, model, unexpected)
    if missing:
        warnings.warn(f"{folder}: not in the checkpoint, initialised at random: {', '.join(missing)}", stacklevel=3)
    if unexpected:
        warnings.warn(f"{folder}: in the checkpoint, but not in the model: {', '.join(unexpected)}", stacklevel=3)
    for name in missing:
        state[name] = torch.empty_like(expected[name], dtype=dtype, device=device_map[""])
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    initialize_weights(model, set(missing))
    call_hook(quantizer, "update_missing_keys_after_loading", None, model, missing, prefix)
    model.to(device).eval()
    call_hook(quantizer, "postprocess_model", None, model=model)
    info = {"missing_keys": set(missing), "unexpected_keys": set(unexpected), "mismatched_keys": set[str]()}
    return (model, info) if output_loading_info else model


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a checkpoint, in file order; each tensor is a view of its file, read when it is used."""
    from safetensors import SafetensorError, safe_open

    for file in find_weights(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    yield name, tensors.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}): fetch it again") from error


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: model.safetensors or the shards that its index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        if pickles := sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind)):
            raise ValueError(
                f"{folder} holds only pickled weights ({', '.join(pickles)}), which run code when they are read: "
                "convert them to safetensors, or use a revision of the repository that has them"
            )
        raise FileNotFoundError(f"{folder} holds neither model.safetensors nor model.safetensors.index.json")
    files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for file in files:
        if Path(file).name != file:
            raise ValueError(f"{index} names {file!r}, which is not in its folder: refused")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{index} names {file}, which is not there: fetch it")
    return [folder / file for file in files]


def share_tied_weights(model: Any, state: dict[str, Tensor]) -> set[str]:
    """The names that need no tensor of their own, because they share that of another; taken out of `state`."""
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else {}
    for name, source in tied.items():
        if name in state and source in state and not torch.equal(state[name], state[source]):
            model.config.tie_word_embeddings = False  # T5 1.1 and its kin: config.json says tied, the weights do not
            return set()
        if name in state:
            state.setdefault(source, state.pop(name))
    return set(tied)


@torch.no_grad()
def initialize_weights(model: Any, names: set[str]) -> None:
    """Gives the named parameters the random values that training starts from."""
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if name in names and not parameter.is_meta:
                model.initialize(module, parameter)


def as_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    dtype = name and getattr(torch, str(name).removeprefix("torch."), None)
    if name and not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype {name!r} is not a type of torch: write for example 'float32' or 'bfloat16'")
    return dtype


def call_hook(quantizer: Any, name: str, default: Any, *arguments: Any, **options: Any) -> Any:
    """What the quantizer's method of that name returns, or `default` if it has none."""
    method = getattr(quantizer, name, None)
    return default if method is None else method(*arguments, **options)
