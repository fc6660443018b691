"""Every example of docs/modular-language.md compiles, and its output says what the page shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

PAGE = Path(__file__).parents[2] / "docs/modular-language.md"


def examples() -> dict[str, list[tuple[str, str]]]:
    """The titled blocks of each section that shows an output: (path, text)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for section in re.split(r"^(?=#+ )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        blocks = re.findall(r"^```python (\S+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        found[section.partition("\n")[0].lstrip("# ")] = blocks
    return found


EXAMPLES = examples()
BASE = EXAMPLES["The modular language"]
SECTIONS = [name for name, blocks in EXAMPLES.items() if any(path.startswith("generated/") for path, _ in blocks)]


@pytest.mark.parametrize("section", SECTIONS)
def test_example(section: str, workspace: Callable[[dict[str, str]], Workspace]) -> None:
    blocks = EXAMPLES[section]
    result = workspace(dict([*BASE, *(b for b in blocks if b[0].startswith("modular/"))])).compile()
    assert not result.diagnostics, "\n".join(map(str, result.diagnostics))
    for path, excerpt in blocks:
        if path.startswith("generated/"):
            assert excerpt in result.outputs[path], result.outputs[path]


def test_the_page_has_examples() -> None:
    assert len(SECTIONS) >= 11
