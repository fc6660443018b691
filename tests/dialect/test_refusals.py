"""Where a conversion would end in a crash, a loop or an undefined name there is a diagnostic, and the others still convert."""

from __future__ import annotations

from pathlib import Path

import pytest
from dialect.tree import plant, tree

from unibody.generator import commands
from unibody.generator.transformers.library import Library
from unibody.generator.transformers.pipeline import convert_tree

PARENT = """
from torch import nn


def helper(x):
    return x


class LlamaBlock(nn.Module):
    size = 1

    def __init__(self):
        super().__init__()

    def forward(self, x):
        return helper(x)


class LlamaOther(nn.Module):
    pass
""".lstrip()

GOOD = "from ..llama.modeling_llama import LlamaBlock\n\n\nclass GoodBlock(LlamaBlock):\n    pass\n"

BAD = {
    "parent class missing": (
        "from ..llama.modeling_llama import LlamaBlok\n\n\nclass DuckBlock(LlamaBlok):\n    pass\n",
        "4:17: error[UB005]: `LlamaBlok` is not a class of llama/modeling_llama.py",
    ),
    "imported function missing": (
        "from ..llama.modeling_llama import LlamaBlock, halper\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def more(self):\n        return halper(1)\n",
        "1:48: error[UB005]: `halper` is not in llama/modeling_llama.py",
    ),
    "no such file": (
        "from ..lama.modeling_lama import LlamaBlock\n",
        "1:1: error[UB004]: there is no file for `..lama.modeling_lama`",
    ),
    "a package instead of a file": (
        "from ...models.llama import LlamaBlock\n",
        "1:1: error[UB004]: there is no file for `...models.llama`",
    ),
    "a module instead of its names": (
        "from ..llama import modeling_llama\n\n\nclass DuckBlock(modeling_llama.LlamaBlock):\n    pass\n",
        "1:1: error[UB007]: `modeling_llama` is imported as a module, so nothing in it can be inherited",
    ),
    "the package itself": (
        "from transformers import logging\nfrom ..llama.modeling_llama import LlamaBlock\n",
        "1:1: error[UB007]: an import from the package `transformers` itself",
    ),
    "a configuration from a modeling file": (
        "from ..llama.modeling_llama import LlamaConfig\n",
        "1:1: error[UB007]: the configuration `LlamaConfig` is imported from a modeling file",
    ),
    "super of a method that is not there": (
        "from ..llama.modeling_llama import LlamaBlock\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def backward(self):\n        super().backward()\n",
        "6:9: error[UB015]: the parent has no method `backward` that `super()` could call",
    ),
    "removal of an attribute that is not there": (
        "from ..llama.modeling_llama import LlamaBlock\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    width = AttributeError()\n",
        "5:5: error[UB014]: the parent has no attribute `width` to remove",
    ),
    "two parents": (
        "from ..llama.modeling_llama import LlamaBlock, LlamaOther\n\n\nclass DuckBlock(LlamaBlock, LlamaOther):\n    pass\n",
        "4:29: error[UB013]: `DuckBlock` inherits from two classes of other models, `LlamaBlock` and `LlamaOther`",
    ),
    "one method twice": (
        "from ..llama.modeling_llama import LlamaBlock\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def a(self):\n        pass\n\n    def a(self):\n        pass\n",
        "8:5: error[UB009]: the method `a` is written twice",
    ),
    "an annotated assignment that an output needs": (
        "from ..llama.modeling_llama import LlamaBlock\n\nZ: int = 4\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def more(self):\n        return Z\n",
        "3:1: error[UB012]: an annotated assignment is left out of the outputs, which use `Z`",
    ),
    "an import under `try` that an output needs": (
        "from ..llama.modeling_llama import LlamaBlock\n\ntry:\n    import fast\nexcept ImportError:\n    fast = None\n\n\n"
        "class DuckBlock(LlamaBlock):\n    def more(self):\n        return fast\n",
        "3:1: error[UB012]: a `try` statement is left out of the outputs, which use `fast`",
    ),
    "an assignment under `if`": (
        "from ..llama.modeling_llama import LlamaBlock\n\nif helper:\n    Z = 1\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def more(self):\n        return Z\n",
        "4:5: error[UB012]: a statement that is not an import, under `if` is left out of the outputs, which use `Z`",
    ),
    "a class under `if` in place of the parent's": (
        "from torch import nn\nfrom ..llama.modeling_llama import LlamaBlock\n\n"
        "if nn:\n\n    class DuckOther(nn.Module):\n        pass\n\n\n"
        "class DuckBlock(LlamaBlock):\n    def more(self):\n        return DuckOther()\n",
        "6:5: error[UB012]: a statement that is not an import, under `if` is left out of the outputs, "
        "which use `DuckOther`",
    ),
    "a statement behind another": (
        "from ..llama.modeling_llama import LlamaBlock\n\nA = 1; B = 2\n\n\n"
        "class DuckBlock(LlamaBlock):\n    def more(self):\n        return B\n",
        "3:1: error[UB012]: a statement on a line with another is left out of the outputs, which use `B`",
    ),
    "an entry without a class": (
        'from ..llama.modeling_llama import LlamaBlock\n\n\nclass DuckBlock(LlamaBlock):\n    pass\n\n\n__all__ = ["DuckConfig"]\n',
        '8:1: error[UB005]: `__all__` names "DuckConfig", for which there is no class: '
        "duck/configuration_duck.py would be empty",
    ),
    "a name that nothing defines": (
        "from ..llama.modeling_llama import LlamaBlock\n\n\nclass DuckBlock(LlamaBlock):\n"
        "    def more(self):\n        return nowhere\n",
        "6:16: error[UB012]: the output uses `nowhere`, which nothing defines or imports",
    ),
    "syntax": ("class DuckBlock(:\n    pass\n", "1:17: error[UB001]: invalid syntax"),
}

NEAREST = {"parent class missing": "LlamaBlock", "imported function missing": "helper"}


@pytest.mark.parametrize("name", BAD)
def test_a_definition_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    root = plant(
        tmp_path,
        {"llama/modeling_llama.py": PARENT, "duck/modular_duck.py": text, "good/modular_good.py": GOOD},
    )

    library = Library(root)
    result = convert_tree(library, library.definitions())

    rows = [str(d).split("\n")[0] for d in result.diagnostics]
    assert rows == [f"duck/modular_duck.py:{expected}"]
    assert all(d.remedy for d in result.diagnostics)
    if name in NEAREST:
        assert [d.remedy for d in result.diagnostics] == [f"did you mean `{NEAREST[name]}`?"]
    assert list(result.outputs) == ["good/modeling_good.py"], "the other definition still converts"


def test_a_circle_is_refused(tmp_path: Path) -> None:
    definition = "from ..{}.modeling_{} import {}Block\n\n\nclass {}Block({}Block):\n    pass\n"
    root = plant(
        tmp_path,
        {
            "llama/modeling_llama.py": PARENT,
            "duck/modular_duck.py": definition.format("goose", "goose", "Goose", "Duck", "Goose"),
            "duck/modeling_duck.py": "class DuckBlock:\n    pass\n",
            "goose/modular_goose.py": definition.format("duck", "duck", "Duck", "Goose", "Duck"),
            "goose/modeling_goose.py": "class GooseBlock:\n    pass\n",
            "good/modular_good.py": GOOD,
        },
    )

    library = Library(root)
    result = convert_tree(library, library.definitions())

    assert [d.code for d in result.diagnostics] == ["UB006"]
    assert "duck/modular_duck.py -> " in result.diagnostics[0].message
    assert list(result.outputs) == ["good/modeling_good.py"]


def test_check_ends_with_1_and_names_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = BAD["two parents"]
    root = plant(tmp_path, {"llama/modeling_llama.py": PARENT, "duck/modular_duck.py": text})

    monkeypatch.chdir(tmp_path)  # in the repository, where editors and GitHub look for the path
    status = commands.check([], tree(root))

    assert status == 1
    assert f"src/transformers/models/duck/modular_duck.py:{expected}" in capsys.readouterr().err


def test_an_unknown_name_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = plant(tmp_path, {"llama/modeling_llama.py": PARENT, "good/modular_good.py": GOOD})

    status = commands.check(["god"], tree(root))

    assert status == 2
    assert "the definitions are good/good" in capsys.readouterr().err
