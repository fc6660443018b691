"""`unibody new model`: what it writes compiles at once, and its test tells a right definition from a wrong one."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

Make = Callable[[dict[str, str]], Workspace]
ROOT = Path(__file__).parents[2]
BASE = """\
from dataclasses import dataclass
from typing import ClassVar


@dataclass(kw_only=True)
class BaseConfig:
    model_type: ClassVar[str] = "base"
    hidden_size: int = 64


class BaseMLP:
    pass


class BasePreTrainedModel:
    config_class = BaseConfig


class BaseModel(BasePreTrainedModel):
    auto_class = "AutoModel"
    mlp = BaseMLP


class BaseForCausalLM(BasePreTrainedModel):
    auto_class = "AutoModelForCausalLM"
    inner = BaseModel


class BaseForTokenClassification(BasePreTrainedModel):
    auto_class = "AutoModelForTokenClassification"
    inner = BaseModel
"""
CHILD = '''\
"""BigBase: Base under another name. What differs is written here, with the paper that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .modular_base import BaseConfig, BaseForCausalLM, BaseModel, BasePreTrainedModel

__all__ = [
    "BigBaseConfig",
    "BigBaseForCausalLM",
    "BigBaseModel",
    "BigBasePreTrainedModel",
]


@dataclass(kw_only=True)
class BigBaseConfig(BaseConfig):
    model_type: ClassVar[str] = "big_base"


class BigBasePreTrainedModel(BasePreTrainedModel):
    pass


class BigBaseModel(BaseModel):
    pass


class BigBaseForCausalLM(BaseForCausalLM):
    pass
'''


def test_definition(workspace: Make) -> None:
    project = workspace({"modular/models/modular_base.py": BASE})
    assert unibody("new", "model", "big_base", "--from", "base", cwd=project.root) == (
        0,
        "created modular/models/modular_big_base.py\ncreated tests/test_big_base.py\nnext: unibody generate big_base\n",
        "",
    )
    assert (project.root / "modular/models/modular_big_base.py").read_text() == CHILD
    done = unibody("generate", cwd=project.root)
    assert (done.status, done.err) == (0, "")
    text = (project.root / "generated/models/modeling_big_base.py").read_text()
    assert "class BigBaseMLP:" in text
    test = (project.root / "tests/test_big_base.py").read_text()
    assert '"generated/models/modeling_big_base.py"' in test
    assert '    "hidden_size": 32,\n}\n' in test
    assert '    "AutoModel": "BigBaseModel",\n    "AutoModelForCausalLM": "BigBaseForCausalLM",\n}\n' in test


def test_all_heads_and_prefix(workspace: Make) -> None:
    project = workspace({"modular/models/modular_base.py": BASE})
    command = ("new", "model", "big_base", "--from", "models/base", "--all-heads", "--prefix", "BIG")
    assert unibody(*command, cwd=project.root).status == 0
    text = (project.root / "modular/models/modular_big_base.py").read_text()
    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert classes == ["BIGConfig", "BIGPreTrainedModel", "BIGModel", "BIGForCausalLM", "BIGForTokenClassification"]
    assert unibody("generate", cwd=project.root).status == 0


def test_plain_parent_in_the_source_folder(workspace: Make) -> None:
    """No dataclass, no folders, no bare model: only what the parent has is written."""
    text = 'class BaseConfig:\n    model_type = "base"\n\n\nclass BaseHead:\n    auto_class = "AutoModelForTokenClassification"\n'
    sources = '[tool.unibody]\nsources = ["other", "modular"]\n'
    project = workspace({"pyproject.toml": sources, "other/README.md": "", "base": text})
    assert unibody("new", "model", "more", "--from", "base", cwd=project.root).status == 0
    written = (project.root / "modular/modular_more.py").read_text()
    assert "import dataclass" not in written
    assert (
        'class MoreConfig(BaseConfig):\n    model_type = "more"\n\n\nclass MoreHead(BaseHead):\n    pass\n' in written
    )
    assert unibody("generate", cwd=project.root).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Big", "--from", "base"], "`Big` cannot be a model type"),
        (["a__b", "--from", "base"], "`a__b` cannot be a model type"),
        (["class", "--from", "base"], "`class` cannot be a model type"),
        (["../x", "--from", "base"], "`../x` cannot be a model type"),
        (["big", "--from", "base", "--prefix", "big"], "`big` cannot begin a class name"),
        (["base", "--from", "base"], "there is a definition `base`"),
        (["odd", "--from", "odd"], "there is a definition `odd`"),
        (["big", "--from", "odd"], "`odd` makes no model"),
        (["taken", "--from", "base"], "`tests/test_taken.py` exists already"),
    ],
)
def test_refused(arguments: list[str], message: str, workspace: Make) -> None:
    odd = "class OddModel:\n    size = 1\n"
    project = workspace({"base": BASE, "odd": odd, "tests/test_taken.py": "precious = True\n"})
    before = {file: file.read_bytes() for file in project.root.rglob("*") if file.is_file()}
    done = unibody("new", "model", *arguments, cwd=project.root)
    assert (done.status, done.out) == (2, "")
    assert f"error[UB027]: {message}\n" in done.err
    assert {file: file.read_bytes() for file in project.root.rglob("*") if file.is_file()} == before


def test_unknown_or_broken_parent(workspace: Make) -> None:
    project = workspace({"base": BASE, "broken": "class BrokenModel(:\n"})
    done = unibody("new", "model", "big", "--from", "gone", cwd=project.root)
    assert done.status == 2
    assert "error[UB023]: no definition is called `gone`\n" in done.err
    done = unibody("new", "model", "big", "--from", "broken", cwd=project.root)
    assert done.status == 2
    assert "error[UB001]" in done.err


@pytest.mark.slow
def test_parity(workspace: Make) -> None:
    """In a foreign project, from a definition of unibody's: right for what is a Llama, wrong for what is not one."""
    project = workspace({})
    for name in ("mistral", "qwen2", "unheard_of"):
        assert unibody("new", "model", name, "--from", "llama", cwd=project.root).status == 0
    assert (
        "from unibody.modular.models.modular_llama import LlamaConfig, "
        in (project.root / "modular/models/modular_mistral.py").read_text()
    )
    done = unibody("generate", cwd=project.root)
    assert (done.status, done.err) == (0, "")

    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True).stdout
    found = dict(re.findall(r"(\S+::\S+) (PASSED|FAILED|SKIPPED)", out))
    names = ("test_same_outputs[AutoModel]", "test_same_outputs[AutoModelForCausalLM]")
    verdicts = {"mistral": "PASSED", "qwen2": "FAILED", "unheard_of": "SKIPPED"}
    assert found == {
        f"tests/test_{model}.py::{name}": verdict for model, verdict in verdicts.items() for name in names
    }
    assert "q_proj.bias" in out
