"""`unibody help UB012`: what a code means, with an example that the tests compile. The texts are in `explanations/`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..diagnostics import CODES
from ..report import FINE, UNUSABLE

FOLDER = Path(__file__).parent / "explanations"
BLOCK = re.compile(r"^`([^`\n]+)`([^\n]*)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A file of an example, or what a command says: the words in the caption's backticks, the rest of it, the text."""

    name: str
    remark: str
    text: str


def explain_code(code: str | None) -> int:
    """Print the explanation of a code, or the list of codes; 2 for a code that does not exist."""
    if code is None:
        for known, title in CODES.items():
            print(f"{known}  {title}")
        return FINE
    code = code.upper()
    if code not in CODES:
        print(f"there is no code {code}; `unibody help` lists them", file=sys.stderr)
        return UNUSABLE
    print(_plain(read_explanation(code)))
    return FINE


def read_explanation(code: str) -> str:
    return (FOLDER / f"{code}.md").read_text(encoding="utf-8")


def blocks(section: str) -> Iterator[Block]:
    """The captioned code blocks of a piece of an explanation."""
    for match in BLOCK.finditer(section):
        yield Block(*match.groups())


def _plain(text: str) -> str:
    """Markdown as a terminal shows it best: headings without their marks, code indented without its fences."""
    rows = []
    inside = False
    for row in text.rstrip("\n").split("\n"):
        if row.startswith("```"):
            inside = not inside
        elif inside:
            rows.append(f"    {row}".rstrip())
        else:
            rows.append(re.sub(r"^#+ ", "", row))
    return "\n".join(rows)
