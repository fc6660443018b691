"""A tiny Llama as a checkpoint, rows of unequal length, and one call that trains by the library or by the oracle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from oracle.reference import Checkpoint, save
from oracle.zoo import first_case
from safetensors.torch import load_file

import unibody
from training.rows import rows
from unibody.integrations import fsdp

SCRIPT = Path(__file__).with_name("script.py")


@pytest.fixture(autouse=True)
def unspoken() -> Iterator[None]:
    """What arguments for FSDP say in the environment is not said to the programs of later tests."""
    yield
    for name in (fsdp.IN_USE, fsdp.EFFICIENT_LOADING):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save(first_case(), "small", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def trainer(llama: Checkpoint, tmp_path: Path) -> Callable[..., Any]:
    """`trainer(library, **settings)`: a trainer of the tiny Llama, the library's or the oracle's; objects by keyword too."""
    objects = (
        "model", "callbacks", "compute_metrics", "compute_loss_func", "data_collator", "optimizers", "eval_dataset",
        "train_dataset", "model_init", "processing_class", "preprocess_logits_for_metrics",
    )  # fmt: skip

    def make(library: Any = unibody, **settings: Any) -> Any:
        given = {name: settings.pop(name) for name in objects if name in settings}
        if "model" not in given and "model_init" not in given:
            given["model"] = llama.load() if library is unibody else llama.reference()
        folder = settings.pop("output_dir", tmp_path / library.__name__)
        defaults = {
            "per_device_train_batch_size": 2, "logging_steps": 1, "use_cpu": True,
            "report_to": "none", "save_strategy": "no",
        }  # fmt: skip
        args = library.TrainingArguments(output_dir=str(folder), **{**defaults, **settings})
        return library.Trainer(args=args, **{"train_dataset": rows(), **given})

    return make


@pytest.fixture
def run(llama: Checkpoint) -> Callable[..., Any]:
    """`run(folder, settings, kill="", launcher=())`: script.py in processes of its own; what it wrote, or how it ended."""

    def script(folder: Path, kill: str = "", launcher: tuple[str, ...] = (sys.executable,), **settings: Any) -> Any:
        tests = SCRIPT.parents[1]
        environment = {
            **os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command = [
            *launcher,
            str(SCRIPT),
            str(folder),
            str(llama.folder),
            json.dumps(settings),
            *([kill] if kill else []),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        if kill:
            assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
            return None
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        return {**found, "weights": load_file(folder / "weights.safetensors"), "output": done.stdout + done.stderr}

    return script


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    transformers.utils.logging.disable_progress_bar()
