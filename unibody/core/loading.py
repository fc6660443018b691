"""Reading checkpoint folders: safetensors, memory-mapped, assigned to a model that was built without memory."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
) -> Any:
    """A model with the weights of a checkpoint, in eval mode; with `output_loading_info` also the keys that differ.

    Without `dtype` (a torch.dtype or its name) weights get the type that config.json names. On the CPU, and where that is the type in the file,
    they are not copied: they are the file, mapped. A `quantizer` is asked at each step, for the hooks that it has.
    """

    def ask(hook: str, default: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(quantizer, hook, lambda *_, **__: default)(*arguments, **options)

    folder = locate_checkpoint(folder_or_id, revision)
    config = model_class.config_class.from_pretrained(folder)
    config.attn_implementation = attn_implementation or config.attn_implementation
    if quantizer is None and (quantization := getattr(config, "quantization_config", None)):
        raise ValueError(f"{folder} is quantized ({quantization.get('quant_method')}): pass a quantizer that reads it")
    dtype, device_map = dtype or config.dtype, {"": device or "cpu"}
    if isinstance(dtype, str) and not isinstance(dtype := getattr(torch, dtype, dtype), torch.dtype):
        raise ValueError(f"dtype {dtype!r} is unknown to torch: write for example 'float32' or 'bfloat16'")
    ask("validate_environment", None, dtype=dtype, device_map=device_map, weights_only=True)
    dtype = ask("update_dtype", dtype, dtype)
    with torch.device("meta"):
        model = model_class(config)
    ask("preprocess_model", None, model=model, device_map=device_map)

    loaded, empty, prefix = read_tensors(folder), model.state_dict(), f"{model.base_model_prefix}."
    expected = set(ask("update_expected_keys", empty, model, list(empty), list(loaded)))
    state, unexpected, mismatched = {}, [], []
    for key, value in loaded.items():
        name = next((name for name in (key, prefix + key, key.removeprefix(prefix)) if name in expected), key)
        if ask("check_quantized_param", False, model, value, name, loaded):
            quantizer.create_quantized_param(model, value, name, device_map[""], loaded)
            expected.discard(name)
        elif name in expected and value.shape == empty[name].shape:
            state[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        elif name in expected:
            mismatched.append(f"{key} is {list(value.shape)}, expected {list(empty[name].shape)}")
        elif not key.endswith(COMPUTED_BUFFERS):
            unexpected.append(key)
    if mismatched:
        raise ValueError(f"{folder} has weights of other shapes than its config.json says: {'; '.join(mismatched)}")
    missing = sorted(expected - state.keys() - share_tied_weights(model, state))
    missing = ask("update_missing_keys", missing, model, missing, prefix)
    unexpected = ask("update_unexpected_keys", unexpected, model, unexpected)
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
    info = {"missing_keys": set(missing), "unexpected_keys": set(unexpected), "mismatched_keys": set[str]()}
    return (model, info) if output_loading_info else model


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
    index, files = folder / "model.safetensors.index.json", {"model.safetensors"}
    if index.is_file() and not (folder / "model.safetensors").is_file():
        files = set(read_json(index)["weight_map"].values())
    if outside := [file for file in files if Path(file).name != file]:
        raise ValueError(f"{index} names files outside its folder ({', '.join(outside)}): refused")
    if absent := [file for file in sorted(files) if not (folder / file).is_file()]:
        if pickles := [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]:
            reason = f"{', '.join(pickles)} could run any code when read, so is refused: convert it to safetensors"
            raise ValueError(f"{folder} has no {absent[0]}, and {reason}")
        raise FileNotFoundError(f"{folder} lacks {', '.join(absent)}: fetch the checkpoint again")
    return [folder / file for file in sorted(files)]


def share_tied_weights(model: Any, state: dict[str, Tensor]) -> set[str]:
    """The names of weights that are tied to others; none, and the model is not tied, if their tensors differ."""
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else {}
    if any(n in state and not torch.equal(state.setdefault(source, state[n]), state[n]) for n, source in tied.items()):
        model.config.tie_word_embeddings, tied = False, {}  # as in T5 1.1, whose config.json does not say so
    return set(tied)


def tie_weights(model: Any) -> None:
    for name, source in model._tied_weights_keys.items() if model.config.tie_word_embeddings else ():
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, model.get_parameter(source))
