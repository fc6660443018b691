"""The checkpoint that all sides of a benchmark read: a folder, a repository of the Hub, or made here with random weights.

As a program (`python -m unibody.bench.checkpoints SPEC.json FOLDER`) it writes one, in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from unibody.bench.errors import BenchmarkError

MADE_FROM = (
    "path",
    "revision",
    "writer",
    "config",
    "auto_class",
    "dtype",
    "seed",
)  # what says how a checkpoint is made
CALIBRATED = ("gptq", "awq", "auto-round")  # methods that look at what a model does with data
WINDOWS, WINDOW_LENGTH = 8, 256  # of the data, where a configuration names no dataset of its own
RANDOM = 0.04  # the standard deviation of random weights, unless the configuration says another


def check_model(config: dict[str, Any]) -> None:
    """BenchmarkError: the configuration names no model, or one that is not there."""
    model = config.get("model") or {}
    if not needs_checkpoint(config):
        return
    given = [name for name in ("path", "writer", "config") if model.get(name) is not None]
    if len(given) != 1:
        raise BenchmarkError(
            f"model {model.get('name')!r} gives {' and '.join(given) or 'nothing to read'}: give one of path (a folder or a Hub id), "
            "writer (module:function, which writes a checkpoint) and config (the keys of config.json, for random weights)"
        )
    path = model.get("path")
    if path is not None and not Path(path).is_dir() and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
        raise BenchmarkError(f"model.path {path!r} is neither a folder that exists nor a Hub id such as owner/name")


def needs_checkpoint(config: dict[str, Any]) -> bool:
    return bool(config["scenario"].get("checkpoint", True))


def checkpoint_key(config: dict[str, Any]) -> str:
    """What tells checkpoints apart: two configurations with one key read the same files."""
    told = {name: config["model"].get(name) for name in MADE_FROM} | {"quantizer": config["quantizer"]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def find_checkpoint(config: dict[str, Any], folder: Path) -> Path | None:
    """The folder of the configuration's checkpoint, below `folder` if it is made now; None if the scenario reads none."""
    if not needs_checkpoint(config):
        return None
    path = config["model"].get("path")
    if path is not None and Path(path).is_dir() and config["quantizer"].get("method") is None:
        return Path(path).resolve()
    made = folder / checkpoint_key(config)
    if not made.is_dir():
        spec, partial = folder / f"{made.name}.json", folder / f"{made.name}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        spec.write_text(json.dumps({"model": config["model"], "quantizer": config["quantizer"]}), encoding="utf-8")
        command = [sys.executable, "-m", "unibody.bench.checkpoints", str(spec), str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise BenchmarkError(f"model {config['model'].get('name')!r}: no checkpoint could be made: {reason[0]}")
        partial.rename(made)
    return made


def write_checkpoint(model: dict[str, Any], quantizer: dict[str, Any], folder: Path) -> None:
    """Writes the checkpoint, quantized if the quantizer has a method."""
    from unibody.hub import locate

    plain = folder.with_suffix(".plain") if quantizer.get("method") else folder
    if model.get("writer"):
        from unibody.bench.registry import resolve

        resolve(model["writer"])(plain)
    elif model.get("config"):
        write_random(model, plain)
    else:
        revision = {"revision": model["revision"]} if model.get("revision") else {}
        plain = locate(model["path"], revision)
        if not quantizer.get("method"):
            shutil.copytree(plain, folder)
    if quantizer.get("method"):
        quantize(plain, quantizer, model["dtype"], folder)
    made = folder.with_suffix(".plain")
    if made.is_dir():
        shutil.rmtree(made)


def write_random(model: dict[str, Any], folder: Path) -> None:
    """Writes a checkpoint with random weights, the same for one seed."""
    import torch

    import unibody

    values = {"initializer_range": RANDOM, **model["config"]}
    torch.manual_seed(model.get("seed") or 0)
    kind = unibody.AutoConfig._find(values.get("model_type"), "model.config")
    made = getattr(unibody, model["auto_class"]).from_config(kind.from_dict(values))
    made.to(getattr(torch, model["dtype"])).save_pretrained(folder)


def quantize(plain: Path, quantizer: dict[str, Any], dtype: str, folder: Path) -> None:
    from unibody.quantize import quantize

    values = dict(quantizer.get("options") or {})
    if quantizer["method"] in CALIBRATED and values.get("iters") != 0:
        values.setdefault("dataset", calibration_tokens(plain, values.get("model_seqlen") or values.get("seqlen")))
    options = [f"--{name}={json.dumps(value)}" for name, value in values.items()]
    with contextlib.redirect_stdout(sys.stderr):
        if quantize(str(plain), quantizer["method"], folder, options, dtype):
            raise SystemExit(1)  # the reason has been written


def calibration_tokens(plain: Path, length: int | None) -> list[list[int]]:
    """Windows of a text that perplexity is not measured on; random tokens for a model that has no tokenizer."""
    from unibody.bench.scenarios.inference import random_tokens
    from unibody.bench.scenarios.perplexity import text_windows

    count, length = WINDOWS, length or WINDOW_LENGTH
    if (plain / "tokenizer.json").is_file():
        windows = text_windows(plain, count, length, slice(20, 40))
    else:
        windows = random_tokens(plain, {"batch_size": count, "sequence_length": length}, "cpu")
    return windows.tolist()  # type: ignore[no-any-return]


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        write_checkpoint(spec["model"], spec["quantizer"], Path(sys.argv[2]))
    except (ImportError, NotImplementedError, OSError, TypeError, ValueError) as error:
        sys.exit(str(error).replace("\n", " "))


if __name__ == "__main__":
    main()
