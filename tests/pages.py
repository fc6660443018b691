"""The Python of documentation pages, for the tests that run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The Python blocks of a text in Markdown, without those that have a title."""
    return BLOCK.findall(text)


def code(page: str) -> str:
    """The Python blocks of a page such as `docs/hub.md`, each in the lines that it has there, as a traceback will name them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = [""] * text.count("\n")
    for match in BLOCK.finditer(text):
        first, block = text.count("\n", 0, match.start(1)), match[1].splitlines()
        rows[first : first + len(block)] = block
    return "\n".join(rows).rstrip() + "\n"


def run(page: str, **names: Any) -> dict[str, Any]:
    """The names that the code of a page leaves when it runs from top to bottom, `names` being there before it."""
    exec(compile(code(page), page, "exec"), names)
    return names
