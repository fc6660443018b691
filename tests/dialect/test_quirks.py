"""Each odd behaviour that the bytes of transformers need can be switched off on its own, by a project too."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from dialect.tree import plant
from tools.command import unibody

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

TABLE = '[tool.unibody]\ndialect = "transformers"\nsources = ["src/transformers/models"]\n'

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


def test_a_project_switches_them_off(tmp_path: Path) -> None:
    """By their names in pyproject.toml; what was found up to date before the change is stale, and up to date again after it."""
    root = plant(tmp_path, {"sam/modeling_sam.py": PARENT, "duck/modular_duck.py": CHILD})
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    assert unibody("generate", cwd=tmp_path).status == 0
    before = (root / "duck/modeling_duck.py").read_text(encoding="utf-8")
    for name, (with_it, without_it) in MARKS.items():
        switch = f"[tool.unibody.quirks]\n{name.replace('_', '-')} = false\n"
        (tmp_path / "pyproject.toml").write_text(TABLE + switch, encoding="utf-8")
        done = unibody("check", cwd=tmp_path)
        assert (done.status, done.err) == (1, ""), name
        text = unibody("generate", "duck", "--stdout", cwd=tmp_path).out
        assert with_it not in text
        assert with_it in before
        assert without_it is None or (without_it in text and without_it not in before)
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    assert unibody("check", cwd=tmp_path).status == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("renames-in-words = false", "unknown key `renames-in-words` in [tool.unibody.quirks]"),
        ("shares-records = 0", "`shares-records` is 0 in [tool.unibody.quirks]"),
        ("shares_records = false", "unknown key `shares_records` in [tool.unibody.quirks]"),
    ],
)
def test_a_project_cannot_switch_off_others(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f"{TABLE}[tool.unibody.quirks]\n{line}\n", encoding="utf-8")
    done = unibody("check", cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(
        f"pyproject.toml: error[UB020]: {message}\n  = help: the keys are renames-inside-words, shares-records, "
        "swallows-repetitions, removes-by-layout, prefers-aliases, each true or false\n"
    )


def test_our_own_dialect_has_none(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.unibody.quirks]\nshares-records = false\n", encoding="utf-8")
    done = unibody("check", cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "`quirks` in [tool.unibody] are those of another dialect" in done.err
