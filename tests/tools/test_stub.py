"""The stub of what `unibody` imports lazily: what mypy makes of it, and that only those get one who ask."""

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
BASE = 'class BaseConfig:\n    model_type = "base"\n\n\nclass BaseModel:\n    auto_class = "AutoModel"\n'
USER = """\
import torch
import unibody
from unibody import AutoConfig, AutoModelForCausalLM, GPTQConfig, LlamaConfig, LlamaForCausalLM

tokens = torch.tensor([[1, 5, 9]])

# By name: the class, its configuration's fields, what it returns.
llama = LlamaForCausalLM.from_pretrained("owner/name", revision="main", device_map="auto", dtype=torch.bfloat16)
fresh = LlamaForCausalLM(LlamaConfig(hidden_size=32))
size: int = LlamaConfig.from_pretrained("owner/name", "main").hidden_size
text: torch.Tensor = llama.generate(tokens, max_new_tokens=8)
logits: torch.Tensor | None = llama(tokens).logits
model, info = LlamaForCausalLM.from_pretrained("folder", output_loading_info=True)
missing: set[str] = info["missing_keys"]

# By the auto classes.
config = AutoConfig.from_pretrained("owner/name")
config.num_hidden_layers = 2
layers = config.num_hidden_layers + 1
quantized = AutoModelForCausalLM.from_pretrained("owner/name", quantization_config=GPTQConfig(bits=4, dataset=["text"]))
quantized.push_to_hub("owner/other", private=True, commit_message="Quantized", tags=["demo"])
quantized.save_pretrained("folder", max_shard_size="2GB", ship_code=True)
AutoModelForCausalLM.from_config(config).to("cpu").eval().generate(tokens)
found, report = unibody.AutoModel.from_pretrained("folder", output_loading_info=True)
config.push_to_hub("owner/config")
unibody.adopt(fresh).push_to_hub("owner/fresh")

# One's own.
class MineConfig(LlamaConfig):
    pass

class Mine(LlamaForCausalLM):
    pass

AutoConfig.register("mine", MineConfig)
AutoModelForCausalLM.register(MineConfig, Mine, exist_ok=True)

bits: int = GPTQConfig(bits=4).bits
plan = GPTQConfig(bits=4).to_diff_dict()
reveal_type(llama)
reveal_type(model)
reveal_type(quantized)
reveal_type(report)
reveal_type(unibody.GptqHfQuantizer(GPTQConfig(bits=4)).update_dtype(torch.float16))
"""
WRONG = """\
import unibody

unibody.LlamaConfig(hidden_size="32")
unibody.LlammaForCausalLM
unibody.LlamaConfig().hiden_size
unibody.AutoModel.from_pretrained("folder").push_to_hub(repo_id=1)
unibody.AutoConfig.from_pretrained(1)
"""


@pytest.mark.slow
def test_user_scripts_under_strict_mypy(root: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [
        *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"),
        *("--cache-dir", str(root / ".mypy_cache/tests")),
    ]
    done = subprocess.run(
        [*command, "user.py", "wrong.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(root)},
        capture_output=True,
        text=True,
    )
    found = [re.sub(r":\d+:", ":", line) for line in done.stdout.splitlines()]
    assert sorted(found) == sorted(
        [
            'user.py: note: Revealed type is "unibody.generated.names.LlamaForCausalLM"',
            'user.py: note: Revealed type is "unibody.generated.names.LlamaForCausalLM"',
            'user.py: note: Revealed type is "unibody.auto.AnyModel"',
            'user.py: note: Revealed type is "dict[str, set[str]]"',
            'user.py: note: Revealed type is "torch._C.dtype"',
            'wrong.py: error: Argument "hidden_size" to "LlamaConfig" has incompatible type "str"; expected "int"  [arg-type]',
            'wrong.py: error: Module has no attribute "LlammaForCausalLM"  [attr-defined]',
            'wrong.py: error: "LlamaConfig" has no attribute "hiden_size"  [attr-defined]',
            'wrong.py: error: Argument "repo_id" to "push_to_hub" of "PreTrainedModel" has incompatible type "int"; expected "str"  [arg-type]',
            'wrong.py: error: Argument 1 to "from_pretrained" of "AutoConfig" has incompatible type "int"; expected "str | PathLike[str]"  [arg-type]',
            "Found 5 errors in 1 file (checked 2 source files)",
        ]
    ), done.stdout + done.stderr


def test_stub_lists_what_can_be_imported(root: Path) -> None:
    """Every class of the registry, with the bases that it has at run time, in their order."""
    import unibody
    from unibody.generated.registry import MODELS, QUANTIZERS

    tree = ast.parse((root / "generated/names.pyi").read_text())
    found = {
        node.name: [base.attr if isinstance(base, ast.Attribute) else base.id for base in node.bases]  # type: ignore[attr-defined]
        for node in tree.body if isinstance(node, ast.ClassDef)
    }  # fmt: skip
    listed = {name for entry in MODELS.values() for name in (entry["config"], *entry["classes"].values())}
    listed |= {name for method in QUANTIZERS.values() for name in (method["config"], *method["quantizers"].values())}
    assert found == {name: [base.__name__ for base in getattr(unibody, name).__bases__] for name in listed}


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


def test_bases(workspace: Make) -> None:
    """Of the kinds that are named; the other classes stay what they are in their files."""
    table = '[tool.unibody]\nstub = "names.pyi"\n[tool.unibody.stub-bases]\nmodel = ["library.hub.Mixin", "*", "library.Last"]\n'
    project = workspace({"pyproject.toml": table, "modular/models/modular_base.py": BASE})
    unibody("generate", cwd=project.root)
    assert (project.root / "generated/names.pyi").read_text().partition('asked for."""\n\n')[2] == (
        "from library import Last\nfrom library.hub import Mixin\n\n"
        "from .models import modeling_base\nfrom .models.modeling_base import BaseConfig as BaseConfig\n\n"
        "class BaseModel(Mixin, modeling_base.BaseModel, Last): ...\n"
    )
