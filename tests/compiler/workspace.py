"""A throw-away project to compile definitions in."""

from __future__ import annotations

import types
from pathlib import Path

from unibody.generator.pipeline import Result, compile_project
from unibody.generator.project import find_project


class Workspace:
    """A folder with a pyproject.toml and some definitions."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        files = {"pyproject.toml": "[tool.unibody]\n"} | files
        for path, text in files.items():
            self.write(path, text)
        (root / "modular").mkdir(exist_ok=True)

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def compile(self, *names: str) -> Result:
        return compile_project(find_project(self.root), list(names) or None)

    def run(self, name: str) -> types.ModuleType:
        """The generated file of a definition, executed."""
        result = self.compile()
        assert not result.diagnostics, "\n".join(map(str, result.diagnostics))
        text = result.outputs[f"generated/modeling_{name}.py"]
        module = types.ModuleType(f"generated_{name}")
        exec(compile(text, f"<{name}>", "exec"), module.__dict__)
        return module
