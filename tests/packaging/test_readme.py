"""What README.md shows of the compiler: its excerpts stand in the files, its own example compiles and runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import BLOCK, blocks

from unibody.generator.commands import check, generate


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_excerpts(root: Path, readme: str) -> None:
    """Their lines stand in the files in this order; `...` is what was left out."""
    files = ("modular/models/modular_mistral.py", "generated/models/modeling_mistral.py")
    for file, shown in zip(files, blocks(readme)[:2], strict=True):
        lines = iter((root / file).read_text(encoding="utf-8").splitlines())
        missing = [line for line in shown.splitlines() if line.strip() not in ("", "...") and line not in lines]
        assert not missing, file


def test_the_compiler_in_a_project(readme: str, tmp_path: Path) -> None:
    """A pyproject.toml and one definition make a file that runs, and that `check` finds up to date."""
    part = readme.partition("## Use the compiler in your own project")[2]
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    assert "unibody" in tomllib.loads(settings)["tool"]
    (definition,) = BLOCK.findall(part)
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    file = tmp_path / definition.splitlines()[0].removeprefix("# ")
    file.parent.mkdir()
    file.write_text(definition, encoding="utf-8")
    assert generate([], tmp_path) == 0
    assert check([], tmp_path) == 0
    script = (
        "import torch\nfrom modeling_mine import MineConfig, MineForCausalLM\n"
        "sizes = dict(vocab_size=16, hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2)\n"
        "model = MineForCausalLM(MineConfig(num_hidden_layers=1, **sizes))\n"
        "found = []\nmlp = model.model.layers[0].mlp\nmlp.register_forward_hook(lambda _, x, y: found.append(y))\n"
        "mlp.down_proj.weight.data.mul_(1e6)\nmodel(torch.tensor([[1, 2, 3]]))\n"
        "print(model.config.model_type, float(found[0].abs().max()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "generated", capture_output=True, text=True, check=False
    )
    assert done.stdout == "mine 10.0\n", done.stderr
