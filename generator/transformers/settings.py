"""The formatter of this dialect: one call that sorts and prunes imports, one that lays the files out."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..format import formatter_command

VERSION = "0.14.10"
UNDEFINED = "F821"  # found, not mended: such an output is refused
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


class Fault(NamedTuple):
    """What the linter finds in an output and cannot mend: its code, what it says, and the row."""

    code: str
    message: str
    row: str


def format_outputs(outputs: Mapping[str, str], in_tree: bool) -> tuple[dict[str, str], dict[str, list[Fault]]]:
    """The raw outputs, formatted, and their faults; both steps run once, over a folder laid out like the tree of models."""
    if not outputs:
        return {}, {}
    command = formatter_command("ruff", VERSION)
    isort = ["--config", ISORT]
    if in_tree:
        isort += ["--config", 'lint.isort.known-first-party = ["transformers"]']
    with tempfile.TemporaryDirectory(prefix="unibody-") as folder:
        files = {path: Path(folder, "src/transformers/models", path) for path in outputs}
        for file in {file.parent for file in files.values()}:
            file.mkdir(parents=True, exist_ok=True)
        for path, text in outputs.items():
            files[path].write_text(text, encoding="utf-8", newline="\n")
        select = ["--select", f"{RULES},{UNDEFINED}", "--fix", "--exit-zero", "--output-format", "json"]
        found = _run([*command, "check", *COMMON, *isort, *select, folder])
        faults = _faults(found, {str(file.resolve()): path for path, file in files.items()})
        for path in faults:
            files.pop(path).unlink()
        _run([*command, "format", *COMMON, folder])
        return {path: file.read_text(encoding="utf-8") for path, file in files.items()}, faults


def _faults(found: str, paths: dict[str, str]) -> dict[str, list[Fault]]:
    """What is left after the repairs: undefined names, and text that does not parse."""
    faults: dict[str, list[Fault]] = {}
    for entry in json.loads(found or "[]"):
        file = Path(entry["filename"])
        code = entry["code"] or "invalid-syntax"
        if code in (UNDEFINED, "invalid-syntax"):
            rows = file.read_text(encoding="utf-8").split("\n")
            row = rows[min(entry["location"]["row"], len(rows)) - 1]
            faults.setdefault(paths[str(file.resolve())], []).append(Fault(code, entry["message"], row.strip()))
    return faults


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ruff refused what the compiler wrote (a bug in the compiler):\n{done.stderr}")
    return done.stdout
