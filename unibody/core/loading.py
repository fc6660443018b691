"""Reading checkpoint folders: safetensors, memory-mapped, assigned to a model that was built without memory."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unibody.core.attention import ATTENTION
from unibody.core.choices import choose
from unibody.core.config import build_config
from unibody.core.hub import locate_checkpoint, read_json

COMPUTED_BUFFERS = ("inv_freq", "position_ids", "attn.bias", "masked_bias")  # stored in old checkpoints


def load_checkpoint(
    model_class: Any,
    folder_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: Any = None,
    device: str | torch.device | None = None,
    attn_implementation: str | None = None,
    quantizer: Any = None,
    output_loading_info: bool = False,
    ignore_mismatched_sizes: bool = False,
) -> Any:
    """A model with the weights of a checkpoint, in eval mode; with `output_loading_info` also the keys that differ.

    Without `dtype` (a torch.dtype or its name), weights get the type that config.json names. On the CPU, if that is
    the type in the file, they are not copied: they are the file, mapped. A `quantizer` may have any of the hooks.
    With `ignore_mismatched_sizes`, weights whose shapes differ are as if they were not there.
    """

    def ask(hook: str, default: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(quantizer, hook, lambda *_, **__: default)(*arguments, **options)

    folder = locate_checkpoint(folder_or_id, revision, ("*.json", "model*.safetensors"))
    file = folder / "config.json"
    config = build_config(model_class.config_class, read_json(file), file)
    config.attn_implementation = attn_implementation or config.attn_implementation
    choose(ATTENTION, config.attn_implementation, "attn_implementation")
    if quantizer is None and (settings := getattr(config, "quantization_config", None)):
        method = settings.get("quant_method", settings)
        raise ValueError(f"{folder} is quantized ({method}): pass the quantizer that reads it, quantizer=…")
    dtype, device_map = dtype or config.dtype, {"": device or "cpu"}
    if isinstance(name := dtype, str):
        dtype = getattr(torch, name, None)
    if name is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize > 1):
        raise ValueError(f"dtype {name!r} is not a type for weights: write for example 'float32' or 'bfloat16'")
    ask("validate_environment", None, dtype=dtype, device_map=device_map, weights_only=True)
    device_map = ask("update_device_map", device_map, device_map) or device_map
    dtype = ask("update_dtype", dtype, dtype)
    with torch.device("meta"), Uninitialized():
        model = model_class(config)
    loaded = {present_name(key, model._renamed_weights): value for key, value in read_tensors(folder).items()}
    ask("preprocess_model", None, model=model, dtype=dtype, device_map=device_map, loaded_keys=list(loaded))
    empty, prefix = model.state_dict(), f"{model.base_model_prefix}."
    expected = set(ask("update_expected_keys", empty, model, list(empty), list(loaded)))
    state, unexpected, mismatched = {}, [], {}
    for key, value in loaded.items():
        name = next((name for name in (key, prefix + key, key.removeprefix(prefix)) if name in expected), key)
        if ask("check_quantized_param", False, model, value, name, loaded):
            quantizer.create_quantized_param(model, value, name, device_map[""], loaded)
            expected.discard(name)
        elif name in expected and value.shape == empty[name].shape:
            state[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        elif name in expected:
            mismatched[name] = f"{key}: found {list(value.shape)}, expected {list(empty[name].shape)}"
        elif not key.endswith(COMPUTED_BUFFERS):
            unexpected.append(key)
    tied = share_tied_weights(model, state)
    missing = sorted(expected - state.keys() - tied)
    refuse_packed_weights(folder, prefix, loaded, unexpected, {*missing, *state})
    if mismatched and not ignore_mismatched_sizes:
        differences = "; ".join(mismatched.values())
        raise ValueError(f"{folder}: shapes differ from those that config.json implies: {differences}")
    missing = ask("update_missing_keys", missing, model, missing, prefix)
    unexpected = ask("update_unexpected_keys", unexpected, model, unexpected, prefix)
    for names, fate in ((missing, "lacks weights, which are random now"), (unexpected, "has weights without a use")):
        if names:
            warnings.warn(f"{folder} {fate}: {', '.join(names)}", stacklevel=3)

    if missing:
        blank = {name: torch.empty_like(empty[name], dtype=dtype, device=device_map[""]) for name in missing}
        model.load_state_dict(blank, strict=False, assign=True)
        model.apply(model._init_weights)
    model.load_state_dict(state, strict=False, assign=True)
    tie_weights(model)
    ask("update_missing_keys_after_loading", None, model, missing, prefix)
    model.to(device).eval()
    ask("postprocess_model", None, model=model)
    mismatches = set(mismatched)
    info = {"missing_keys": {*missing} - mismatches, "unexpected_keys": {*unexpected}, "mismatched_keys": mismatches}
    return (model, info) if output_loading_info else model


def refuse_packed_weights(
    folder: Path, prefix: str, loaded: dict[str, Tensor], unexpected: list[str], names: set[str]
) -> None:
    """Refuses weights that only a quantizer reads: other tensors in a weight's place, or scales beside integers or float8."""
    packed: dict[str, list[str]] = {}
    for key in unexpected:
        module, inside, rest = key.partition(".weight.")
        module, rest = (module, f"weight.{rest}") if inside else (key.rpartition(".")[0], key.rpartition(".")[2])
        stored = loaded.get(f"{module}.weight")
        is_plain = stored is not None and stored.is_floating_point() and stored.element_size() > 1 and not inside
        forms = module, prefix + module, module.removeprefix(prefix)
        if not is_plain and rest != "bias" and any(f"{form}.weight" in names for form in forms):
            packed.setdefault(module, []).append(rest)
    if packed:
        module, tensors = next(iter(packed.items()))
        raise ValueError(
            f"{folder} holds {len(packed)} layers packed, such as {module} ({', '.join(sorted(tensors))}), and its config.json "
            "does not say how: pass the quantizer that reads it, quantizer=…"
        )


class Uninitialized(TorchFunctionMode):
    """Where it is entered, torch.nn.init does nothing: there is no need to draw what will be loaded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if getattr(func, "__module__", "") == "torch.nn.init" else func(*args, **(kwargs or {}))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, each a view of its file that is read when it is used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in find_weights(folder):
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}): fetch it again") from error
    return tensors


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: model.safetensors, or the shards that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")):
            raise ValueError(
                f"{folder} holds only pickled weights ({', '.join(pickles)}), which run code when they are read: "
                "convert them to safetensors, or use a revision of the repository that has them"
            )
        raise FileNotFoundError(f"{folder} holds neither {single.name} nor {index.name}")
    places = read_json(index).get("weight_map")
    if not places or not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index} has no weight_map that names a file for each tensor: fetch it again")
    for file in (files := sorted(set(places.values()))):
        if Path(file).name != file:
            raise ValueError(f"{index} names {file!r}, which is not in its folder: refused")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{index} names {file}, which is not there: fetch it")
    return [folder / file for file in files]


def present_name(key: str, renamed: dict[str, str]) -> str:
    for old, new in renamed.items():
        key = re.sub(old, new, key)
    return key


def share_tied_weights(model: Any, state: dict[str, Tensor]) -> set[str]:
    """The names of weights that are tied to others; none, and the model is not tied, if their tensors differ."""
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else {}
    for name in tied.keys() & state.keys():
        state.setdefault(tied[name], state[name])
    if all(torch.equal(state[tied[name]], state[name]) for name in tied.keys() & state.keys()):
        return set(tied)
    for name, source in tied.items():  # one pair differs: the others become two weights of the same value
        if source in state and state.get(name, state[source]) is state[source]:
            state[name] = state[source].clone()
    model.config.tie_word_embeddings = False  # as in T5 1.1, whose config.json does not say so
    return set()


def tie_weights(model: Any) -> None:
    for name, source in model._tied_weights_keys.items() if model.config.tie_word_embeddings else ():
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, model.get_parameter(source))
