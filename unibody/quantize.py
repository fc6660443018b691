"""`unibody quantize` and `unibody dequantize`: a checkpoint in, a quantized or a plain one out."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import nn

import unibody
from unibody.core.command_line import read_tokenizer
from unibody.core.hub import read_json
from unibody.hub import locate
from unibody.model_types import class_names
from unibody.quantization import find_settings
from unibody.quantize_options import read_options

# What a user can mend: it is said, not traced.
FAILURES = (ImportError, OSError, RuntimeError, TypeError, ValueError, re.error)
# What the model that is written has of its own, or no longer is.
REWRITTEN = re.compile(r"config\.json|model.*\.safetensors|.*\.index\.json|quant(ize)?_config\.json|quanto_qmap\.json")


class Quantized(NamedTuple):
    """What became of a model's linear layers, embeddings and heads aside."""

    layers: int  # that are packed
    all_layers: int
    bits_per_weight: float  # of those packed, scales and zero points included


def quantize(
    model: str, method: str, out: Path, options: Sequence[str], dtype: str | None = None, revision: str | None = None
) -> int:
    """Writes the quantized checkpoint, whole or not at all, and says what it is; the exit status."""
    try:
        config = read_options(method, options)
        require_new(out)
        folder = locate(model, {"revision": revision})
        values = read_json(folder / "config.json")
        if stored := find_settings(values.get("quantization_config"), folder):
            found = stored.get("quant_method") if isinstance(stored, dict) else stored
            raise ValueError(f"{model} is quantized already ({found}): start from the model's plain checkpoint")
        prepare_calibration(method, config, folder)
        with whole_folder(out) as place, incomplete_refused():
            start = time.perf_counter()
            quantized = model_class(folder).from_pretrained(folder, quantization_config=config, dtype=dtype)
            count = count_layers(quantized)
            seconds = time.perf_counter() - start
            if not count.layers:
                raise ValueError(f"{method} with these options can pack none of the {count.all_layers} linear layers")
            quantized.save_pretrained(place)
            copy_companions(folder, place)
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    before, after = (sum(file.stat().st_size for file in f.glob("model*.safetensors")) for f in (folder, out))
    part = f"{count.layers} of {count.all_layers} linear layers, {count.bits_per_weight:.2f} bits per weight"
    print(f"quantized {part}, in {seconds:.0f} s; wrote {out}: {after / 1e6:,.1f} MB, {after / before:.0%} of {model}")
    return 0


def dequantize(checkpoint: str, out: Path, dtype: str | None = None, revision: str | None = None) -> int:
    """Writes the plain checkpoint of a quantized one, whole or not at all; the exit status."""
    try:
        require_new(out)
        folder = locate(checkpoint, {"revision": revision})
        with whole_folder(out) as place:
            model = model_class(folder).from_pretrained(folder, dtype=dtype)
            if not hasattr(model, "hf_quantizer"):
                raise ValueError(f"{checkpoint} is not quantized: its weights are plain already")
            model.hf_quantizer.dequantize(model).save_pretrained(place)
            copy_companions(folder, place)
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in out.glob("model*.safetensors"))
    print(f"wrote {out}: {size / 1e6:,.1f} MB of weights in {str(model.dtype).removeprefix('torch.')}")
    return 0


def require_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: name a new folder")


def prepare_calibration(method: str, config: Any, folder: Path) -> None:
    """Gives a configuration the checkpoint's tokenizer if it takes one. ValueError: there is nothing to calibrate with."""
    if getattr(config, "dataset", ()) in (None, []) and getattr(config, "iters", None) != 0:
        raise ValueError(
            f"dataset is empty: {method} needs texts like those that the model will read; name a file of them, --dataset FILE"
        )
    file = folder / "tokenizer.json"
    if getattr(config, "tokenizer", "") is None and file.is_file():
        try:
            config.tokenizer = read_tokenizer(file)
        except (OSError, ValueError):
            raise
        except Exception as error:  # that library raises nothing more specific
            raise ValueError(f"{file} holds no tokenizer ({error}): fetch it again") from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files come to lie in `out` at the end; where something fails, nothing is left there."""
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}): name a folder elsewhere") from error
    try:
        yield place
        for file in sorted(place.iterdir(), key=lambda file: file.name == "config.json"):  # without which it is none
            file.replace(out / file.name)
    except SafetensorError as error:  # of a full disk, say
        raise OSError(f"{out} cannot be written ({error}): make room, or name a folder elsewhere") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if is_new and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def incomplete_refused() -> Iterator[None]:
    """Where it is entered, a checkpoint that lacks weights is refused before they are drawn and quantized."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* lacks weights, which are random now")
        try:
            yield
        except UserWarning as error:
            if ", which are random now" not in str(error):
                raise
            lacking = str(error).replace(", which are random now", "", 1)
            raise ValueError(f"{lacking}: fetch it again; config.json says which it is to have") from error


def model_class(folder: Path) -> Any:
    """The auto class that reads the architecture which a checkpoint names, or else predicts tokens."""
    values = read_json(folder / "config.json")
    architecture = next(iter(values.get("architectures") or ()), None)
    classes = class_names(str(values.get("model_type")))
    usual = "AutoModelForMaskedLM" if "AutoModelForMaskedLM" in classes else "AutoModelForCausalLM"
    return getattr(unibody, next((auto for auto, name in classes.items() if name == architecture), usual))


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
