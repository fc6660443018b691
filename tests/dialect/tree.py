"""Small trees of models for the tests, and the text files that describe them."""

from __future__ import annotations

import re
from pathlib import Path

from unibody.generator.project import Project


def tree(root: Path) -> Project:
    """The project whose models lie in a folder."""
    return Project(root, (".",), ".", dialect="transformers")


def plant(folder: Path, files: dict[str, str]) -> Path:
    """Write files below `src/transformers/models` in a folder; returns that folder of models."""
    root = folder / "src/transformers/models"
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def read_case(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The input files (`--- path`) and the expected outputs without their banners (`+++ path`) of a case."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    pieces = re.split(r"^(---|\+\+\+) (\S+)\n", text, flags=re.MULTILINE)
    for sign, path, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        (inputs if sign == "---" else outputs)[path] = body
    return inputs, outputs
