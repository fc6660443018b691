"""The fixtures of `tests/fixtures/quantization`: what the quantization packages computed, recorded once.

`load("hqq/layers")` gives the tensors and the facts of one file. A script `record_NAME.py` writes the files of one package, in
the environment that `make oracle-NAME` makes; `make record-NAME` runs it. A checkpoint that a package wrote is a folder, left
as the package wrote it; what belongs to it (token ids, logits, facts) lies in its `values.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parents[2] / "fixtures/quantization"
SCRIPTS = Path(__file__).parent


class Fixture(NamedTuple):
    """The tensors of one file by name, and the facts about their recording."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def load(name: str) -> Fixture:
    """The fixture `name`, such as `hqq/layers`."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
        return Fixture(tensors, json.loads(file.metadata()["facts"]))


def load_json(name: str) -> Any:
    """The recorded value of the JSON file `name`, such as `hqq/config`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["recorded"]


def save(name: str, script: str, tensors: dict[str, Tensor], **facts: object) -> None:
    """Write the fixture `name`; `script` is the path of the script that records it."""
    path = FOLDER / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {key: tensor.detach().clone().contiguous() for key, tensor in sorted(tensors.items())}
    save_file(stored, path, {"facts": json.dumps(origin(script) | facts)})  # one key: the order of several is random


def save_json(name: str, script: str, recorded: object) -> None:
    """Write the JSON file `name`, with the facts that `save` writes beside tensors."""
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**origin(script), "recorded": recorded}, indent=1) + "\n", encoding="utf-8")


def origin(script: str) -> dict[str, str]:
    """What a recording depends on: the packages' versions, the script and its hash."""
    package, release = pinned(Path(script).name)
    if version(package) != release:
        raise RuntimeError(
            f"{package} is {version(package)} here, and {release} is to be recorded: run `make oracle-…`"
        )
    return {
        "package": package,
        "version": release,
        "transformers": version("transformers"),
        "torch": torch.__version__.partition("+")[0],
        "script": Path(script).name,
        "script_sha256": fingerprint(Path(script).name),
    }


def pinned(script: str) -> tuple[str, str]:
    """The package that a script records and its version: the first line of the list of its environment."""
    name = re.sub("_(kernels|saved)$", "", script.removeprefix("record_").removesuffix(".py")).replace("_", "-")
    requirements = SCRIPTS / f"{name}.txt"
    package, _, release = requirements.read_text(encoding="utf-8").splitlines()[0].partition("==")
    return package, release


def fingerprint(script: str) -> str:
    """The hash of a recording script together with what it imports from beside itself, this module left out."""
    text = (SCRIPTS / script).read_text(encoding="utf-8")
    imported = re.search(r"^from oracle\.quantization import (.+)$", text, re.MULTILINE)
    files = [f"{name}.py" for name in imported[1].split(", ") if name != "fixtures"] if imported else []
    return hashlib.sha256(b"".join((SCRIPTS / file).read_bytes() for file in [script, *files])).hexdigest()
