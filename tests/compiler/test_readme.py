"""The refusal that README.md shows is the one that the compiler gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from compiler.workspace import Workspace

README = Path(__file__).parents[2] / "README.md"


def test_the_refusal_in_the_readme(workspace: Callable[[dict[str, str]], Workspace]) -> None:
    (shown,) = re.findall(r"^```\n(modular/modular_mine\.py:.*?)…\n```$", README.read_text(), re.DOTALL | re.MULTILINE)
    row = re.search(r"^1 \| (.*)$", shown, re.MULTILINE)
    assert row
    (found,) = workspace({"mine": f"{row[1]}\n\n\nclass A(LlamaMLPs):\n    pass\n"}).compile().diagnostics
    assert str(found).startswith(shown)
