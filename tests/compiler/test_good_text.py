"""The generated files of this repository read as if written by hand: no name in them was made up by the compiler."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = sorted((ROOT / "generated").rglob("*_*.py"))


def identifiers(text: str) -> set[str]:
    return {t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME}


def written() -> set[str]:
    files = [*(ROOT / "modular").rglob("*.py"), *(ROOT / "unibody/core").rglob("*.py")]
    names = set().union(*(identifiers(file.read_text(encoding="utf-8")) for file in files))
    # A kernel's template writes names that begin with the one of its row: `{{ name }}_operator`.
    rows = {
        row
        for file in files
        for row in re.findall(r'Kernel\(\s*"(\w+)",\s*template=', file.read_text(encoding="utf-8"))
    }
    for template in (ROOT / "templates/kernels").glob("*.j2"):
        for row in rows:
            names |= set(
                re.findall(r"\w+", template.read_text(encoding="utf-8").replace("{{ name }}", f"{row}_matmul"))
            )
    return names


WRITTEN = written()


@pytest.mark.parametrize("file", GENERATED, ids=lambda file: file.name)
def test_every_name_was_written_by_somebody(file: Path) -> None:
    """But for the classes that a family has in its parent's roles: no kept private method, no local with a suffix."""
    made = identifiers(file.read_text(encoding="utf-8")) - WRITTEN
    prefix = file.stem.rpartition("_")[2].title()
    assert {name for name in made if not name.startswith(prefix)} == set()
