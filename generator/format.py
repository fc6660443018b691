"""Stage 10: all outputs through the formatter and version that the project names, in one call."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .project import Project

TARGET = "py311"


def format_files(project: Project, files: Mapping[str, str]) -> dict[str, str]:
    """The files, formatted; refused when the formatter that the project names is not at hand in that version."""
    if not files:
        return {}
    tool, _, version = project.formatter.partition("==")
    if tool not in ("ruff", "black") or not version:
        message, remedy = f"`formatter` is {project.formatter!r}", 'write "ruff==VERSION" or "black==VERSION"'
        raise CompileError(Diagnostic("UB020", message, remedy, "pyproject.toml"))
    command = formatter_command(tool, version)
    length = str(project.line_length)
    if tool == "ruff":
        command += [
            "format",
            "--isolated",
            "--quiet",
            "--no-cache",
            "--target-version",
            TARGET,
            "--line-length",
            length,
        ]
    else:
        command += ["--quiet", "--target-version", TARGET, "--line-length", length, "--config", "/dev/null"]
    with tempfile.TemporaryDirectory(prefix="unibody-") as folder:
        names = {path: Path(folder, f"{number}{Path(path).suffix}") for number, path in enumerate(files)}
        for path, text in files.items():
            names[path].write_text(text, encoding="utf-8", newline="\n")
        done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{tool} refused what the compiler wrote (a bug in the compiler):\n{done.stderr}")
        return {path: file.read_text(encoding="utf-8") for path, file in names.items()}


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
