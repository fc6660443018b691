"""`unibody quantize`: a checkpoint in, a quantized checkpoint out."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import unibody
from unibody.core.command_line import read_tokenizer
from unibody.core.hub import locate_checkpoint, read_json
from unibody.generated.registry import QUANTIZERS
from unibody.model_types import class_names

# What a user can mend: it is said, not traced.
FAILURES = (ImportError, OSError, RuntimeError, TypeError, ValueError, re.error)
REWRITTEN = re.compile(r"config\.json|model.*\.safetensors(\.index\.json)?")  # what the quantized model has of its own


class Quantized(NamedTuple):
    """What became of a model's linear layers, embeddings and heads aside."""

    layers: int  # that are packed
    all_layers: int
    bits_per_weight: float  # of those packed, scales and zero points included


def quantize(model: str, method: str, out: Path, options: Sequence[str], dtype: str | None = None) -> int:
    """Writes the quantized checkpoint and says what it is; the exit status."""
    try:
        config = read_options(method, options)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} is not empty: name a new folder")
        folder = locate_checkpoint(model, patterns=("*.json", "*.txt", "*.model", "model*.safetensors"))
        if stored := read_json(folder / "config.json").get("quantization_config"):
            found = stored.get("quant_method") if isinstance(stored, dict) else stored
            raise ValueError(f"{model} is quantized already ({found}): start from the model's plain checkpoint")
        if getattr(config, "tokenizer", "") is None and (folder / "tokenizer.json").is_file():
            config.tokenizer = read_tokenizer(folder / "tokenizer.json")
        start = time.perf_counter()
        quantized = model_class(folder).from_pretrained(folder, quantization_config=config, dtype=dtype)
        count = count_layers(quantized)
        seconds = time.perf_counter() - start
        if not count.layers:
            raise ValueError(f"{method} with these options can pack none of the {count.all_layers} linear layers")
        quantized.save_pretrained(out)
        copy_companions(folder, out)
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    before, after = (sum(file.stat().st_size for file in f.glob("model*.safetensors")) for f in (folder, out))
    part = f"{count.layers} of {count.all_layers} linear layers, {count.bits_per_weight:.2f} bits per weight"
    print(f"quantized {part}, in {seconds:.0f} s; wrote {out}: {after / 1e6:,.1f} MB, {after / before:.0%} of {model}")
    return 0


def read_options(method: str, options: Sequence[str]) -> Any:
    """The configuration that `--group-size 64 --desc-act` and the like describe; values are JSON, or else texts.

    A dataset may be the path of a text file, whose paragraphs are the texts.
    """
    if method not in QUANTIZERS:
        raise ValueError(f"method {method!r} is not known: there are {', '.join(QUANTIZERS)}")
    config_class = getattr(unibody, QUANTIZERS[method]["config"])
    names = {field.name.replace("_", "-"): field.name for field in dataclasses.fields(config_class)}
    values: dict[str, Any] = {}
    rest = list(options)
    while rest:
        option, _, value = rest.pop(0).partition("=")
        name = names.get(option.removeprefix("--").replace("_", "-"))
        if name is None or not option.startswith("--"):
            raise ValueError(
                f"{option} is no option of {method}: there are {', '.join(f'--{name}' for name in names)}"
            )
        if not value:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    dataset = values.get("dataset")
    if isinstance(dataset, str) and Path(dataset).is_file():
        values["dataset"] = re.split(r"\n\s*\n", Path(dataset).read_text(encoding="utf-8").strip())
    return config_class(**values)


def model_class(folder: Path) -> Any:
    """The auto class that reads the architecture which a checkpoint names."""
    values = read_json(folder / "config.json")
    architecture = next(iter(values.get("architectures") or ()), None)
    found = (auto for auto, name in class_names(str(values.get("model_type"))).items() if name == architecture)
    return getattr(unibody, next(found, "AutoModelForCausalLM"))


def packed_modules(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "stored_tensors")]


def is_plain(module: nn.Module) -> bool:
    """Whether it is a linear layer that no method has changed."""
    return isinstance(module, nn.Linear) and not hasattr(module, "stored_tensors")


def count_layers(model: Any) -> Quantized:
    """How many of the model's linear layers are packed, and in how many bits a weight."""
    packed, plain = packed_modules(model), [module for module in model.modules() if is_plain(module)]
    tensors = [tensor for layer in packed for tensor in layer.stored_tensors().values() if tensor is not None]
    weights = sum(layer.in_features * layer.out_features for layer in packed)
    bits = 8 * sum(tensor.nbytes for tensor in tensors) / max(1, weights)
    return Quantized(len(packed), len(packed) + len(plain), bits)


def copy_companions(folder: Path, out: Path) -> None:
    """Copies the tokenizer's and the other small files that belong to a checkpoint."""
    for file in folder.iterdir():
        if file.suffix in (".json", ".txt", ".model", ".jinja") and not REWRITTEN.fullmatch(file.name):
            shutil.copy(file, out)
