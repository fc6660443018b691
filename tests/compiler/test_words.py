"""Renaming never makes a word that nobody wrote: whole names change, pieces of words do not."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meaning.unformatted import compile_definitions

MEMBERS = ("Base", "BaseConfig", "BaseMLP", "BaseModel", "base_scale", "BASE_LIMIT", "base")
PIECES = (*MEMBERS, "s", "d", "a", "de", "Sam", "ment", "_", "2", "x", "Model")
words = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join).filter(str.isidentifier)
unmangled = words.filter(lambda word: not word.startswith("__") or word.endswith("__"))
names = unmangled.filter(lambda word: not keyword.iskeyword(word) and word not in (*MEMBERS, "x", "self", "config"))
prose = st.lists(words, min_size=1, max_size=6).map(" ".join)
CHILD = """
from .modular_base import BaseConfig, BaseModel


class ChildConfig(BaseConfig):
    model_type = "child"


class ChildModel(BaseModel):
    pass
"""
ROLES = {
    "BaseConfig": "ChildConfig", "BaseMLP": "ChildMLP", "BaseModel": "ChildModel",
    "base_scale": "child_scale", "BASE_LIMIT": "CHILD_LIMIT", "base": "child",
}  # fmt: skip


def vocabulary(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(doc=prose, comment=prose, literal=prose, local=names, attribute=names, parameter=names)
def test_words(folder: Path, doc: str, comment: str, literal: str, local: str, attribute: str, parameter: str) -> None:
    base = f'''
BASE_LIMIT = 3


def base_scale(x):
    return x * BASE_LIMIT


class BaseConfig:
    """{doc}"""

    model_type = "base"


class BaseMLP:
    def __init__(self, config: BaseConfig):
        self.{attribute} = "{literal}"  # {comment}


class BaseModel:
    def __init__(self, config: BaseConfig):
        self.base = BaseMLP(config)

    def run(self, {parameter}=1):
        """{doc}"""
        {local} = base_scale(2)
        return {local}, f"{literal} {{{local}}}", self.base.{attribute}
'''
    files = {"modular/modular_base.py": base, "modular/modular_child.py": CHILD}
    result = compile_definitions(Workspace(folder, files).root)
    assert not result.diagnostics, str(result.diagnostics[0])
    text = result.outputs["generated/modeling_child.py"]
    body = text.partition("from __future__")[2]
    assert vocabulary(body) <= vocabulary(base) | vocabulary(CHILD) | set(ROLES.values()) | {"annotations", "__all__"}
    strings = [t.string for t in tokenize.generate_tokens(io.StringIO(body).readline) if t.type == tokenize.STRING]
    assert f'"{ROLES.get(literal, literal)}"' in strings
