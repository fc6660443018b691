"""Stage 10: all outputs through the formatter and version that the project names, in one call, or two where a linter goes first."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .diagnostics import CompileError, Diagnostic

TARGET = "py311"
BROKEN = "invalid-syntax"  # the code of a fault: the text does not parse


@dataclass(frozen=True)
class Style:
    """How outputs are laid out: `TOOL==VERSION`, the length of lines, and what ruff's linter does before."""

    formatter: str
    line_length: int
    mended: tuple[str, ...] = ()  # the linter's rules whose findings it mends; none: no linter
    sought: tuple[str, ...] = ()  # those that are looked for: their findings are faults
    settings: tuple[str, ...] = ()  # of the linter, as in `lint.isort.lines-after-imports = 2`


class Fault(NamedTuple):
    """What the linter finds in an output and does not mend: its code, what it says, and the row."""

    code: str
    message: str
    row: str


class Formatted(NamedTuple):
    """The files as they are laid out, and the faults of those that have some."""

    texts: dict[str, str]
    faults: dict[str, list[Fault]]


def format_files(style: Style, files: Mapping[str, str]) -> Formatted:
    """The files, formatted; refused when the formatter that the project names is not at hand in that version."""
    if not files:
        return Formatted({}, {})
    tool, _, version = style.formatter.partition("==")
    if tool not in ("ruff", "black") or not version or (tool == "black" and style.mended):
        message, remedy = f"`formatter` is {style.formatter!r}", 'write "ruff==VERSION" or "black==VERSION"'
        if style.mended:
            remedy = 'write "ruff==VERSION": the outputs need its linter, too'
        raise CompileError(Diagnostic("UB020", message, remedy, "pyproject.toml"))
    command = formatter_command(tool, version)
    common = ["--quiet", "--target-version", TARGET, "--line-length", str(style.line_length)]
    common += ["--isolated", "--no-cache"] if tool == "ruff" else ["--config", "/dev/null"]
    with tempfile.TemporaryDirectory(prefix="unibody-") as folder:
        names = {path: Path(folder, path) for path in files}
        for parent in {name.parent for name in names.values()}:
            parent.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            names[path].write_text(text, encoding="utf-8", newline="\n")
        faults = _lint([*command, "check", *common], style, folder, names) if style.mended else {}
        for path in faults:
            names.pop(path).unlink()
        _run([*command, *(["format"] if tool == "ruff" else []), *common, folder], tool)
        return Formatted({path: name.read_text(encoding="utf-8") for path, name in names.items()}, faults)


def _lint(command: list[str], style: Style, folder: str, names: Mapping[str, Path]) -> dict[str, list[Fault]]:
    """Mend the files where they lie; what is left: findings of the sought rules, and text that does not parse."""
    settings = [word for setting in style.settings for word in ("--config", setting)]
    select = ["--select", ",".join([*style.mended, *style.sought]), "--fix", "--exit-zero", "--output-format", "json"]
    found = _run([*command, *settings, *select, folder], "ruff")
    paths = {str(name.resolve()): path for path, name in names.items()}
    faults: dict[str, list[Fault]] = {}
    for entry in json.loads(found or "[]"):
        file = Path(entry["filename"])
        code = entry["code"] or BROKEN
        if code in (*style.sought, BROKEN):
            rows = file.read_text(encoding="utf-8").split("\n")
            row = rows[min(entry["location"]["row"], len(rows)) - 1]
            faults.setdefault(paths[str(file.resolve())], []).append(Fault(code, entry["message"], row.strip()))
    return faults


def _run(command: list[str], tool: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} refused what the compiler wrote (a bug in the compiler):\n{done.stderr}")
    return done.stdout


def formatter_command(tool: str, version: str) -> list[str]:
    """The command that runs the tool in that version: the one installed beside us, else the one on PATH."""
    found = []
    try:
        installed = importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        installed = ""
    if installed == version:
        script = Path(sysconfig.get_path("scripts"), tool)
        return [str(script)] if script.exists() else [sys.executable, "-m", tool]
    if installed:
        found.append(installed)
    on_path = shutil.which(tool)
    if on_path:
        words = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=False).stdout.split()
        other = words[1].rstrip(",") if len(words) > 1 else "unknown"
        if other == version:
            return [on_path]
        found.append(other)
    message = f"the project is formatted with {tool} {version}, " + (
        f"but {' and '.join(dict.fromkeys(found))} is installed" if found else "which is not installed"
    )
    raise CompileError(Diagnostic("UB021", message, f'run `pip install "{tool}=={version}"`', "pyproject.toml"))
