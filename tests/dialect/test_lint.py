"""`lint` finds what the conversion corrupts or drops, and can be told what is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dialect.tree import plant, tree

from unibody.generator.transformers.library import Library, package_file
from unibody.generator.transformers.lint import REMEDIES, lint, lint_project

SAM = '''
class SamBlock:
    """A sample of the same."""

    def __init__(self):
        self.width = 1
        if self.width:
            self.deep = 1

    def forward(self, x):
        width = 2
        return x

    def gone(self):
        return 1

    def both(self, x):
        self.kind = 0
        return x

    def also(self, x):
        self.kind = 3
        return x


class SamTextLayer:
    pass
'''.lstrip()

DUCK = """
from ..sam.modeling_sam import SamBlock, SamTextLayer, nothing


Z: int = 4


# lost above
class Duck2Block(SamBlock):
    def __init__(self):
        super().__init__()
        if self.width:
            self.deep = 1

    def forward(self, x):
        out = super().forward(x)
        return out

    @staticmethod
    def gone(self):
        raise AttributeError("not here")

    def both(self, x):
        super().both(x)
        self.kind = 1

    def also(self, x):
        super().also(x)


class Duck2VisionTextLayer(SamTextLayer):
    pass


class Duck2OtherTextLayer(SamTextLayer):
    pass


def twice():
    return 1


def twice():
    return 2
""".lstrip()

EXPECTED = [
    ("TD001", 1, "`sample` becomes `duck2ple` (sam/modeling_sam.py:2)"),
    ("TD001", 1, "`same` becomes `duck2e` (sam/modeling_sam.py:2)"),
    ("TD002", 11, "`if self.width:` is left out: the body already has that statement"),
    ("TD003", 24, "this assignment of `self.kind` also replaces the one in another inherited method"),
    ("TD004", 15, "`super().forward(…)` stays, and now means the bases of the new class"),
    ("TD005", 4, "an annotated assignment is in no output"),
    ("TD006", 19, "`gone` only raises, but the inherited method is not removed: it is replaced"),
    ("TD007", 7, "the comment above `Duck2Block` is in no output"),
    ("TD009", 1, "`nothing` is not in sam/modeling_sam.py"),
    ("TD010", 38, "`twice` is defined again below, and only that one counts"),
]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return plant(tmp_path, {"sam/modeling_sam.py": SAM, "duck2/modular_duck2.py": DUCK})


def test_each_finding_has_its_place(models: Path) -> None:
    found = lint(Library(models), ["duck2/modular_duck2.py"])

    assert sorted((f.code, f.line, f.message) for f in found) == sorted(EXPECTED)
    assert all(f.remedy for f in found)


def test_an_alias_is_found(tmp_path: Path) -> None:
    definition = (
        "from ..sam.modeling_sam import SamTextLayer\n\n\nclass DuckVisionTextLayer(SamTextLayer):\n    pass\n"
    )
    root = plant(tmp_path, {"sam/modeling_sam.py": SAM, "duck/modular_duck.py": definition})

    found = lint(Library(root), ["duck/modular_duck.py"])

    assert [(f.code, f.line, f.message) for f in found] == [
        ("TD008", 1, "`sam` is read as `duck_vision`, not as `duck`")
    ]


def test_a_comment_suppresses(models: Path) -> None:
    file = models / "duck2/modular_duck2.py"
    file.write_text(DUCK.replace("Z: int = 4", "Z: int = 4  # unibody: ignore[TD005]"))
    codes = {f.code for f in lint(Library(models), ["duck2/modular_duck2.py"])}

    assert codes == {code for code, _, _ in EXPECTED} - {"TD005"}


def test_a_baseline_hides_what_is_known(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "baseline.json"
    assert lint_project([], tree(models), "text", baseline, write_baseline=True) == 0
    assert lint_project([], tree(models), "text", baseline) == 0

    file = models / "duck2/modular_duck2.py"
    file.write_text(file.read_text() + "\nY: int = 5\n")
    capsys.readouterr()

    assert lint_project([], tree(models), "text", baseline) == 1
    assert capsys.readouterr().out.count("warning[") == 1


def test_the_other_formats(models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.parents[2])
    assert lint_project([], tree(models), "json") == 1
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    assert [(f["code"], f["line"]) for f in found if f["code"] == "TD005"] == [("TD005", 4)]

    assert lint_project([], tree(models), "github") == 1
    path = "src/transformers/models/duck2/modular_duck2.py"
    title = "TD005%3A an annotated assignment is in no output"
    assert f"::warning file={path},line=4,col=1,title={title}" in capsys.readouterr().out


def test_the_known_defects_of_transformers_are_found() -> None:
    models = package_file("transformers/models")
    assert models is not None
    names = ["sam2", "sam3", "glm4v_moe", "vivit", "pocket_tts_audio_tokenizer"]

    found = lint(Library(models), [f"{name}/modular_{name}.py" for name in names])

    rows = "\n".join(map(str, found))
    for known in (
        "`sample` becomes `sam2ple`",
        "`sam2e` becomes `sam3e`",
        "`Glm4VisionMlp` becomes `Glm4vMoeisionMlp`",
    ):
        assert known in rows
    assert any(f.code == "TD003" and "vivit" in f.path and "num_patches" in f.message for f in found)


def test_every_rule_is_exercised() -> None:
    assert {code for code, _, _ in EXPECTED} | {"TD008"} == set(REMEDIES)
