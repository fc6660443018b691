"""`register` of the auto classes, with a model that a user has compiled in a project of their own."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hub.conftest import BEGIN
from hub.loopback import loopback
from oracle.inputs import token_ids
from oracle.quantization import inputs
from pages import code

import unibody
from unibody import model_types

DEFINITION = """
from unibody.modular.models.modular_llama import LlamaConfig, LlamaForCausalLM, LlamaMLP, LlamaModel


class MineConfig(LlamaConfig):
    model_type = "mine"


class MineMLP(LlamaMLP):
    def forward(self, hidden):
        return super().forward(hidden) * 100


class MineModel(LlamaModel):
    pass


class MineForCausalLM(LlamaForCausalLM):
    pass
"""
SIZES = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `modeling_mine.py`, which the compiler wrote."""
    root = tmp_path_factory.mktemp("project")
    (root / "pyproject.toml").write_text("[tool.unibody]\n")
    (root / "modular").mkdir()
    (root / "modular/modular_mine.py").write_text(DEFINITION)
    done = subprocess.run([sys.executable, "-m", "unibody", "generate"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "generated"


@pytest.fixture
def mine(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(project))
    yield importlib.import_module("modeling_mine")
    model_types._registered.clear()


@pytest.fixture
def registered(mine: ModuleType) -> ModuleType:
    unibody.AutoConfig.register("mine", mine.MineConfig)
    unibody.AutoModel.register(mine.MineConfig, mine.MineModel)
    unibody.AutoModelForCausalLM.register(mine.MineConfig, mine.MineForCausalLM)
    return mine


def test_auto_classes_give_the_library_edition(registered: ModuleType, tmp_path: Path) -> None:
    config = registered.MineConfig(**SIZES)
    model = unibody.AutoModelForCausalLM.from_config(config)
    assert isinstance(model, registered.MineForCausalLM)
    assert isinstance(model, unibody.PushToHubMixin)
    assert unibody.PreTrainedModel in type(model).__mro__
    model.save_pretrained(tmp_path)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    read = unibody.AutoConfig.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert (type(read).__name__, read.architectures) == ("MineConfig", ["MineForCausalLM"])
    assert isinstance(read, unibody.PushToHubMixin)
    with pytest.warns(UserWarning, match="without a use: lm_head.weight"):
        assert isinstance(unibody.AutoModel.from_pretrained(tmp_path), registered.MineModel)
    ids = token_ids()
    with torch.no_grad():
        alone = registered.MineForCausalLM.from_pretrained(tmp_path)(ids).logits
        assert torch.equal(again(ids).logits, alone)
        llama = unibody.LlamaForCausalLM(unibody.LlamaConfig(**SIZES))
        llama.load_state_dict(again.state_dict())
        assert not torch.allclose(llama.eval()(ids).logits, alone), "the user's own code is what runs"


def test_quantized(registered: ModuleType, tmp_path: Path) -> None:
    unibody.AutoModelForCausalLM.from_config(registered.MineConfig(**SIZES)).save_pretrained(tmp_path / "plain")
    config = unibody.CompressedTensorsConfig(config_groups={"W8A8": ["Linear"]}, ignore=["lm_head"])
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
    model.save_pretrained(tmp_path / "packed")
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    assert again.hf_quantizer.quantization_config.quant_method == "compressed-tensors"
    with torch.no_grad():
        assert torch.equal(again(token_ids()).logits, model(token_ids()).logits)


def test_adopted_and_pickled(registered: ModuleType, project: Path, tmp_path: Path) -> None:
    """A pickle needs the user's module, and no registration."""
    model = unibody.adopt(registered.MineForCausalLM(registered.MineConfig(**SIZES)).eval())
    assert isinstance(model, unibody.PushToHubMixin)
    assert type(pickle.loads(pickle.dumps(model))) is type(model)
    assert type(copy.deepcopy(model)) is type(model)
    torch.save(model, tmp_path / "model.pt")
    code = f"""
import sys; sys.path[:0] = [{str(project)!r}]
import torch
model = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
print(type(model).__module__, type(model).__name__, hasattr(model, "push_to_hub"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["modeling_mine", "MineForCausalLM", "True"], done.stderr


def test_pushed_with_its_code(project: Path, tmp_path: Path) -> None:
    """Whoever has not registered it reads it with the code that was shipped, as a library edition too."""
    with loopback() as hub:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_alice",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        push = f"""
sys.path[:0] = [{str(project)!r}]
from modeling_mine import MineConfig, MineForCausalLM
unibody.AutoModelForCausalLM.register(MineConfig, MineForCausalLM)
torch.manual_seed(0)
model = unibody.AutoModelForCausalLM.from_config(MineConfig(**{SIZES!r}))
model.push_to_hub("alice/mine", ship_code=True)
print(json.dumps(sums(model)))
"""
        pull = """
answers["no"] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained("alice/mine"))
model = unibody.AutoModelForCausalLM.from_pretrained("alice/mine", trust_remote_code=True)
model.push_to_hub("alice/again", ship_code=True)
print(json.dumps(sums(model)))
"""
        answers = []
        for script in (push, pull):
            done = subprocess.run(
                [sys.executable, "-c", BEGIN + script, str(tmp_path)], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            answers.append(done.stdout)
        assert answers[0] == answers[1] != ""
        for name in ("alice/mine", "alice/again"):
            repository = hub.repositories[name]
            files = repository.commits[repository.refs["main"]]
            assert files["modeling_mine.py"] == (project / "modeling_mine.py").read_bytes()
            assert b'"MineForCausalLM"' in files["config.json"]
            snippet = f'unibody.AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)'
            assert snippet in files["README.md"].decode()


def test_what_is_taken(registered: ModuleType) -> None:
    """A type of the registry, or another class for one's own, only with `exist_ok`; the same class again is nothing new."""

    class LlamaOfMine(unibody.LlamaForCausalLM):
        pass

    def register(**options: Any) -> None:
        unibody.AutoModelForCausalLM.register(unibody.LlamaConfig, LlamaOfMine, **options)

    with pytest.raises(ValueError, match="'llama' has LlamaForCausalLM for AutoModelForCausalLM: choose another"):
        register()
    with pytest.raises(
        ValueError, match="'llama' has LlamaConfig for AutoConfig: choose another model_type, or pass exist"
    ):
        unibody.AutoConfig.register("llama", type("Other", (unibody.LlamaConfig,), {}))
    register(exist_ok=True)
    model = unibody.AutoModelForCausalLM.from_config(unibody.LlamaConfig(**SIZES))
    assert type(model) is LlamaOfMine
    unibody.AutoConfig.register("mine", registered.MineConfig)
    with pytest.raises(ValueError, match="'mine' has MineConfig for AutoConfig"):
        unibody.AutoConfig.register("mine", type("Other", (registered.MineConfig,), {}))


def test_what_cannot_be_registered(mine: ModuleType) -> None:
    with pytest.raises(ValueError, match="MineConfig says model_type 'mine', and is to be registered as 'yours'"):
        unibody.AutoConfig.register("yours", mine.MineConfig)
    with pytest.raises(
        ValueError, match="MineForCausalLM takes MineConfig of modeling_mine, not LlamaConfig of unibody"
    ):
        unibody.AutoModelForCausalLM.register(unibody.LlamaConfig, mine.MineForCausalLM)
    with pytest.raises(
        TypeError, match="Linear is not the class of a model: register one of a generated file, or a subcl"
    ):
        unibody.AutoModel.register(mine.MineConfig, torch.nn.Linear)
    with pytest.raises(TypeError, match="'mine' is not the class of a configuration"):
        unibody.AutoModel.register("mine", mine.MineModel)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"MineConfig says model_type 'mine'; generated files read .*gemma"):
        unibody.AutoModel.from_config(mine.MineConfig())
    unibody.AutoConfig.register("mine", mine.MineConfig)
    with pytest.raises(
        ValueError, match="MineConfig says model_type 'mine', which has no AutoModel: use one of AutoConfig"
    ):
        unibody.AutoModel.from_config(mine.MineConfig())


def test_the_page(project: Path, tmp_path: Path) -> None:
    """The code of docs/loading.md runs, from top to bottom."""
    inputs.llama().save_pretrained(tmp_path / "plain")
    script = f"import sys; sys.path[:0] = [{str(project)!r}]; folder = 'plain'\n{code('docs/loading.md')}" + """
assert "disk" in model.hf_device_map.values()
print(fresh.dtype, tokens.shape[1], type(mine).__name__, unibody.PushToHubMixin in type(again).__mro__)
"""  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["torch.float32 7 MineForCausalLM True"], done.stderr
    assert (tmp_path / "mine/modeling_mine.py").is_file()
