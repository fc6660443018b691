"""A project of its own inherits from installed packages: absolute imports, and a model that trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dialect.tree import tree

from unibody.generator import commands

MINE = """
from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaMLP


class MineConfig(LlamaConfig):
    model_type = "mine"


class MineMLP(LlamaMLP):
    def __init__(self, config):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(self.norm(x)))


class MineForCausalLM(LlamaForCausalLM):
    pass


__all__ = ["MineConfig", "MineForCausalLM"]
""".lstrip()

STEP = """
import torch
from mymodels.mine.configuration_mine import MineConfig
from mymodels.mine.modeling_mine import MineForCausalLM

torch.manual_seed(0)
config = MineConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
model = MineForCausalLM(config)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
ids = torch.randint(0, 64, (2, 8))
losses = []
for _ in range(2):
    loss = model(input_ids=ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert model.model.layers[0].mlp.norm.weight.grad.abs().sum() > 0
print(losses[1] < losses[0])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "mymodels/mine").mkdir(parents=True)
    (folder / "mymodels/mine/modular_mine.py").write_text(MINE)
    return folder


def test_a_generated_file_imports_absolutely_and_trains(project: Path) -> None:
    assert commands.generate([], tree(project)) == 0

    text = (project / "mymodels/mine/modeling_mine.py").read_text()
    assert "from transformers.cache_utils import Cache" in text
    assert "from .configuration_mine import MineConfig" in text
    assert "from .." not in text
    assert "generated from mymodels/mine/modular_mine.py." in text
    done = subprocess.run([sys.executable, "-c", STEP], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("True")


def test_any_installed_package_can_be_a_parent(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "installed/birds/goose"
    package.mkdir(parents=True)
    (tmp_path / "installed/birds/__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "modeling_goose.py").write_text(
        "from ..wings import flap\n\n\nclass GooseBlock:\n    def fly(self):\n        from ...air import lift\n\n"
        "        return flap(lift)\n".replace("...air", "..air")
    )
    (project / "mymodels/mine/modular_mine.py").write_text(
        "from birds.goose.modeling_goose import GooseBlock\n\n\nclass MineBlock(GooseBlock):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "installed")

    assert commands.generate([], tree(project), output=project / "out") == 0

    text = (project / "out/mymodels/mine/modeling_mine.py").read_text()
    assert "from birds.wings import flap" in text
    assert "        from birds.air import lift\n" in text
    assert "class MineBlock:" in text


def test_a_package_that_is_not_installed_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "mymodels/mine/modular_mine.py").write_text(
        "from absent.models.goose.modeling_goose import GooseBlock\n\n\nclass MineBlock(GooseBlock):\n    pass\n"
    )

    assert commands.generate([], tree(project)) == 1
    assert "mine.py:1:1: error[UB004]: there is no file for `absent.models.goose" in capsys.readouterr().err
