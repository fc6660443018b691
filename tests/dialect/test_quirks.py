"""Each odd behaviour that the bytes of transformers need can be switched off on its own."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from dialect.tree import plant

from unibody.generator.transformers.library import Library
from unibody.generator.transformers.pipeline import convert_tree
from unibody.generator.transformers.quirks import Quirks

PARENT = '''
class SamBlock:
    def __init__(self):
        """A sample."""
        self.one = 1
        self.call()

    def forward(self):
        self.one = 2

    def documented(self):
        return 1


class SamHelper:
    pass


class SamLayer:
    def __init__(self):
        self.helper = SamHelper()
'''.lstrip()

CHILD = '''
from ..sam.modeling_sam import SamBlock, SamLayer


class DuckBlock(SamBlock):
    def __init__(self):
        super().__init__()
        self.one = 10
        self.call()

    def forward(self):
        super().forward()

    def documented(self):
        """Goes, if layout does not matter."""
        raise AttributeError("no")


class DuckTextLayer(SamLayer):
    pass
'''.lstrip()

# What an output holds with the behaviour, and what without it.
MARKS = {
    "renames_inside_words": ("A duckple.", "A sample."),
    "shares_records": ("def forward(self):\n        self.one = 10\n", "def forward(self):\n        self.one = 2\n"),
    "swallows_repetitions": ("self.one = 10\n        self.call()\n\n", "        self.call()\n        self.call()\n"),
    "removes_by_layout": ("def documented", None),
}


def convert(tmp_path: Path, quirks: Quirks) -> str:
    root = plant(tmp_path, {"sam/modeling_sam.py": PARENT, "duck/modular_duck.py": CHILD})
    return convert_tree(Library(root, quirks), ["duck/modular_duck.py"]).outputs["duck/modeling_duck.py"]


@pytest.mark.parametrize("name", MARKS)
def test_a_quirk_is_on_and_can_be_switched_off(name: str, tmp_path: Path) -> None:
    with_it, without_it = MARKS[name]

    on = convert(tmp_path, Quirks())
    off = convert(tmp_path, replace(Quirks(), **{name: False}))

    assert with_it in on
    assert with_it not in off
    assert without_it is None or (without_it in off and without_it not in on)


def test_every_quirk_has_a_test() -> None:
    assert {field.name for field in fields(Quirks)} == {*MARKS, "prefers_aliases"}


def test_aliases_can_be_switched_off(tmp_path: Path) -> None:
    child = "from ..sam.modeling_sam import SamLayer\n\n\nclass DuckTextLayer(SamLayer):\n    pass\n"
    root = plant(tmp_path, {"sam/modeling_sam.py": PARENT, "duck/modular_duck.py": child})

    def outputs(quirks: Quirks) -> str:
        return convert_tree(Library(root, quirks), ["duck/modular_duck.py"]).outputs["duck/modeling_duck.py"]

    assert "class DuckTextHelper" in outputs(Quirks())
    assert "class DuckHelper" in outputs(Quirks.none())
