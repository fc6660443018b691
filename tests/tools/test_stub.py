"""The stub of what `unibody` imports lazily: what mypy makes of it, and that only those get one who ask."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

Make = Callable[[dict[str, str]], Workspace]
BASE = 'class BaseConfig:\n    model_type = "base"\n\n\nclass BaseModel:\n    auto_class = "AutoModel"\n'
USER = """\
import unibody
from unibody import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

model = LlamaForCausalLM(LlamaConfig(hidden_size=32))
reveal_type(model)
reveal_type(unibody.MistralConfig)
AutoModelForCausalLM.from_pretrained("folder")
LlamaConfig(hidden_size="32")
unibody.LlammaForCausalLM
"""


@pytest.mark.slow
def test_user_script_under_strict_mypy(root: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        root / ".mypy_cache/tests",
    ]
    done = subprocess.run(
        [*command, "user.py"], cwd=tmp_path, env={**os.environ, "MYPYPATH": str(root)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        'user.py:5: note: Revealed type is "unibody.generated.models.modeling_llama.LlamaForCausalLM"',
        'user.py:6: note: Revealed type is "def (*, architectures: list[str] | None =, '
        + done.stdout.splitlines()[1].partition("architectures: list[str] | None =, ")[2],
        'user.py:8: error: Argument "hidden_size" to "LlamaConfig" has incompatible type "str"; expected "int"  [arg-type]',
        'user.py:9: error: Module has no attribute "LlammaForCausalLM"  [attr-defined]',
        "Found 2 errors in 1 file (checked 1 source file)",
    ], done.stdout + done.stderr


def test_stub_lists_what_can_be_imported(root: Path) -> None:
    from unibody.generated.registry import MODELS, QUANTIZERS

    tree = ast.parse((root / "generated/names.pyi").read_text())
    found = {
        (node.module, alias.name)
        for node in tree.body if isinstance(node, ast.ImportFrom)
        for alias in node.names if alias.asname == alias.name
    }  # fmt: skip
    listed = {
        (f"models.{entry['module']}", name)
        for entry in MODELS.values()
        for name in (entry["config"], *entry["classes"].values())
    }
    listed |= {
        (f"quantizers.{method['module']}", name)
        for method in QUANTIZERS.values()
        for name in (method["config"], *method["quantizers"].values())
    }
    assert found == listed


def test_only_who_asks_gets_one(workspace: Make) -> None:
    project = workspace({"base": BASE})
    unibody("generate", cwd=project.root)
    assert not list(project.root.rglob("*.pyi"))
    project.write("pyproject.toml", '[tool.unibody]\nstub = "names.pyi"\n')
    assert "created generated/names.pyi\n" in unibody("generate", cwd=project.root).out
    project.write("pyproject.toml", "[tool.unibody]\n")
    assert "orphaned: generated/names.pyi\n" in unibody("check", cwd=project.root).out
    assert "removed generated/names.pyi\n" in unibody("generate", cwd=project.root).out


@pytest.mark.parametrize(
    ("stub", "definition", "expected"),
    [
        ("names.pyi", "modular/modular_base.py", ".modeling_base"),
        ("names.pyi", "modular/models/modular_base.py", ".models.modeling_base"),
        ("models/names.pyi", "modular/models/modular_base.py", ".modeling_base"),
        ("types/names.pyi", "modular/models/modular_base.py", "..models.modeling_base"),
        ("a/b/names.pyi", "modular/modular_base.py", "...modeling_base"),
    ],
)
def test_imports_are_relative_to_the_stub(stub: str, definition: str, expected: str, workspace: Make) -> None:
    project = workspace({"pyproject.toml": f'[tool.unibody]\nstub = "{stub}"\n', definition: BASE})
    unibody("generate", cwd=project.root)
    assert (project.root / "generated" / stub).read_text().partition("\n\n")[2] == (
        f"from {expected} import BaseConfig as BaseConfig\nfrom {expected} import BaseModel as BaseModel\n"
    )
