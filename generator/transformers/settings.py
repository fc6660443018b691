"""The settings of the formatter under which the outputs of this dialect have their bytes."""

from __future__ import annotations

from ..format import Style

UNDEFINED = "F821"  # found, not mended: such an output is refused
RULES = ("I001", "F401", "F811", "SIM910", "W291", "W293")


def style_of(formatter: str, line_length: int, in_tree: bool) -> Style:
    """The style of a tree of models; inside transformers its own package sorts as first-party."""
    settings = ["lint.isort.lines-after-imports = 2"]
    if in_tree:
        settings.append('lint.isort.known-first-party = ["transformers"]')
    return Style(formatter, line_length, RULES, (UNDEFINED,), tuple(settings))
