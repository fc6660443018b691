"""Goldens: drop a file into `cases/<pass>/` and it is a test.

A case is one text file of sections, each headed by `=== <path>`. Sections under `modular/` (and pyproject.toml) are written to an
empty project, sections under `generated/` are what must come out; the section `errors` holds the exact diagnostics.
`python tests/compiler/test_cases.py` rewrites the expected sections from what the compiler says now; read the diff.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

CASES = Path(__file__).parent / "cases"
FILES = sorted(CASES.rglob("*.txt"))


def read_case(file: Path) -> dict[str, str]:
    sections: dict[str, str] = {}
    name = ""
    for line in file.read_text().splitlines(keepends=True):
        if line.startswith("=== "):
            name = line[4:].strip()
            sections[name] = ""
        else:
            sections[name] += line
    return sections


def outcome(workspace: Workspace, expected: dict[str, str]) -> dict[str, str]:
    result = workspace.compile()
    found = {path: text for path, text in result.outputs.items() if path in expected}
    if result.diagnostics or "errors" in expected:
        found["errors"] = "".join(f"{diagnostic}\n" for diagnostic in result.diagnostics)
    return found


def given(sections: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in sections.items() if not path.startswith("generated/") and path != "errors"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CASES).as_posix())
def test_case(file: Path, workspace: Callable[[dict[str, str]], Workspace]) -> None:
    sections = read_case(file)
    expected = {path: text for path, text in sections.items() if path not in given(sections)}
    assert expected, "the case expects nothing"
    project = workspace(given(sections))
    assert outcome(project, expected) == expected
    for path, text in project.compile().outputs.items():
        names = {n.module or "" for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
        assert not any(name.startswith(("unibody", "modular")) for name in names), path


def test_every_pass_has_cases() -> None:
    assert len(FILES) >= 20
    assert all(any(folder.glob("*.txt")) for folder in CASES.iterdir())


def _rewrite() -> None:
    import tempfile

    for file in FILES:
        sections = read_case(file)
        with tempfile.TemporaryDirectory() as folder:
            expected = {path: text for path, text in sections.items() if path not in given(sections)}
            sections |= outcome(Workspace(Path(folder), given(sections)), expected)
        file.write_text("".join(f"=== {path}\n{text}" for path, text in sections.items()))


if __name__ == "__main__":
    sys.exit(_rewrite())
