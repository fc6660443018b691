"""The formatter of this dialect: one call that sorts and prunes imports, one that lays the files out."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..format import _command

VERSION = "0.14.10"
RULES = "I001,F401,F811,SIM910,W291,W293"
COMMON = (
    "--isolated",
    "--no-cache",
    "--quiet",
    "--config",
    "line-length = 119",
    "--config",
    'target-version = "py311"',
)
ISORT = "lint.isort.lines-after-imports = 2"


def format_outputs(outputs: Mapping[str, str], in_tree: bool) -> dict[str, str]:
    """The raw outputs, formatted: both steps run once, over a temporary folder laid out like the tree of models."""
    if not outputs:
        return {}
    command = _command("ruff", VERSION)
    isort = ["--config", ISORT]
    if in_tree:
        isort += ["--config", 'lint.isort.known-first-party = ["transformers"]']
    with tempfile.TemporaryDirectory(prefix="unibody-") as folder:
        files = {path: Path(folder, "src/transformers/models", path) for path in outputs}
        for file in {file.parent for file in files.values()}:
            file.mkdir(parents=True, exist_ok=True)
        for path, text in outputs.items():
            files[path].write_text(text, encoding="utf-8", newline="\n")
        _run([*command, "check", *COMMON, *isort, "--select", RULES, "--fix", "--exit-zero", folder])
        _run([*command, "format", *COMMON, folder])
        return {path: file.read_text(encoding="utf-8") for path, file in files.items()}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ruff refused what the compiler wrote (a bug in the compiler):\n{done.stderr}")
