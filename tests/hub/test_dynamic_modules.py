"""Code that comes with a checkpoint: run only where it is trusted, side by side by revision, shipped by `ship_code`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub.conftest import Client
from hub.loopback import Hub, Repository

CODE = """
import json
from pathlib import Path
from .helper import VALUE

Path("ran.txt").write_text("yes")

class MineConfig:
    @classmethod
    def from_pretrained(cls, folder, **options):
        made = cls()
        made.values, made.value = json.loads(Path(folder, "config.json").read_text()), VALUE
        return made

class MineModel(MineConfig):
    pass
"""
HELPER = "from . import deeper\n\nVALUE = deeper.VALUE\n"
CONFIG = {
    "model_type": "mine",
    "unibody_auto_map": {"AutoConfig": "modeling_mine.MineConfig", "AutoModel": "modeling_mine.MineModel"},
}


def files(value: int, **changes: Any) -> dict[str, bytes]:
    texts = {
        "config.json": json.dumps({**CONFIG, **changes}), "modeling_mine.py": CODE, "helper.py": HELPER,
        "deeper.py": f"VALUE = {value}\n", "model.safetensors": "",
    }  # fmt: skip
    return {name: text.encode() for name, text in texts.items()}


@pytest.fixture
def mine(hub: Hub) -> Repository:
    """Two revisions with other code."""
    repository = hub.repositories["alice/mine"] = Repository()
    first = repository.commit(files(1), "first", "main", None)
    repository.tags["v1"] = first
    repository.commit(files(2), "second", "main", first)
    return repository


def test_refused_unless_trusted(mine: Repository, client: Client, tmp_path: Path) -> None:
    """The refusal names repository, files and commit; nothing has run, nor been fetched."""
    found = client("""
for name, options in (("unsaid", {}), ("no", {"trust_remote_code": False})):
    answers[name] = error(lambda: unibody.AutoConfig.from_pretrained("alice/mine", **options))
answers["ran"] = Path("ran.txt").exists()
answers["yes"] = unibody.AutoConfig.from_pretrained("alice/mine", trust_remote_code=True).value
answers["after"] = Path("ran.txt").exists()
""")  # fmt: skip
    for name in ("unsaid", "no"):
        assert found[name] == (
            "UntrustedCodeError: alice/mine brings code of its own, which would run on this machine: "
            f"MineConfig of modeling_mine.py, beside deeper.py, helper.py, at {mine.refs['main']}. "
            "Read it, and if you trust it, pass trust_remote_code=True"
        )
    assert (found["ran"], found["yes"], found["after"]) == (False, 2, True)


def test_revisions_side_by_side(mine: Repository, client: Client) -> None:
    found = client("""
def value(**options):
    return unibody.AutoConfig.from_pretrained("alice/mine", trust_remote_code=True, **options).value
answers["values"] = [value(), value(revision="v1"), value(), value(code_revision="v1")]
answers["class"] = unibody.AutoModel.from_pretrained("alice/mine", trust_remote_code=True, revision="v1").__class__.__module__
""")  # fmt: skip
    assert found["values"] == [2, 1, 2, 1]
    assert found["class"] == f"unibody_modules.alice.mine.{_name(mine.tags['v1'])}.modeling_mine"


def _name(commit: str) -> str:
    return commit if commit.isidentifier() else f"_{commit}"


def test_local_folders(client: Client) -> None:
    """A changed file is another module; a helper that is changed counts; links and names that lead out are refused."""
    found = client(f"FILES = {files(1)!r}" + """
work = Path("work").absolute()
work.mkdir()
for name, text in FILES.items():
    (work / name).write_bytes(text)
def value():
    return unibody.AutoConfig.from_pretrained(work, trust_remote_code=True).value
answers["first"] = value()
(work / "deeper.py").write_text("VALUE = 3")
answers["changed"] = value()
(work / "helper.py").write_text("from .. import other")
answers["above"] = error(value)
(work / "helper.py").write_text("import nowhere_to_be_found\\nVALUE = 1")
answers["missing"] = error(value)
(work / "helper.py").write_text("try:\\n    import nowhere_to_be_found\\nexcept ImportError:\\n    pass\\nVALUE = 9")
answers["guarded"] = value()
(work / "helper.py").unlink()
Path("outside.py").write_text("VALUE = 1")
(work / "helper.py").symlink_to(Path("outside.py").absolute())
answers["link"] = error(value)
(work / "helper.py").unlink()
answers["gone"] = error(value)
(work / "modeling_mine.py").write_text("class")
answers["broken"] = error(value)
for reference in ("../evil.X", "modeling_mine", 5, ["a.B"], "os/path.X"):
    (work / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": reference}}))
    answers[f"reference {reference}"] = error(value)
""")  # fmt: skip
    assert (found["first"], found["changed"], found["guarded"]) == (1, 3, 9)
    assert "line 1: only modules of the same folder can be imported" in found["above"]
    assert "imports nowhere_to_be_found, which is not installed: pip install nowhere_to_be_found" in found["missing"]
    assert "out of its folder: refused" in found["link"]
    assert found["gone"].startswith("HubError: ")
    assert "is not Python that can be read" in found["broken"]
    references = [text for name, text in found.items() if name.startswith("reference")]
    assert len(references) == 5
    assert all("expected module.Class" in text for text in references)


def test_many_processes_at_once(mine: Repository, client: Client) -> None:
    """They write the same modules, each whole."""
    found = client("""
import subprocess
code = "import unibody; print(unibody.AutoConfig.from_pretrained('alice/mine', trust_remote_code=True).value)"
running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
answers["values"] = [process.communicate()[0].strip() for process in running]
""")  # fmt: skip
    assert found["values"] == ["2"] * 4


def test_shipped_code(hub: Hub, client: Client) -> None:
    """A model brings its one file; where it is trusted, that is what runs, also for a model type that is not known; alone too."""
    found = client("""
ids = torch.tensor([[1, 5, 9, 2, 8]])
model = unibody.AutoModelForCausalLM.from_pretrained(folder)
model.push_to_hub("alice/shipped", ship_code=True)
with torch.no_grad():
    expected = model(ids).logits
    local = unibody.AutoModelForCausalLM.from_pretrained("alice/shipped")
    remote = unibody.AutoModelForCausalLM.from_pretrained("alice/shipped", trust_remote_code=True)
    answers["same"] = torch.equal(local(ids).logits, expected) and torch.equal(remote(ids).logits, expected)
answers["classes"] = [type(local).__module__, type(remote).__module__.partition(".")[0]]
work = Path("work").absolute()
model.save_pretrained(work, ship_code=True)
import subprocess
alone = "import sys; sys.modules['unibody'] = None; from modeling_llama import LlamaForCausalLM as M; print(type(M.from_pretrained('.')).__name__)"
answers["alone"] = subprocess.run([sys.executable, "-c", alone], cwd=work, capture_output=True, text=True).stdout.strip()
import transformers
for trust in (True, False):
    theirs = transformers.AutoModelForCausalLM.from_pretrained("alice/shipped", trust_remote_code=trust)
    answers[f"theirs {trust}"] = torch.allclose(theirs(ids).logits, expected, atol=1e-5)
""")  # fmt: skip
    assert found == {
        "same": True, "classes": ["unibody", "unibody_modules"], "alone": "LlamaForCausalLM", "theirs True": True,
        "theirs False": True,
    }  # fmt: skip
    repository = hub.repositories["alice/shipped"]
    assert "modeling_llama.py" in repository.commits[repository.refs["main"]]


OURS = """
import unibody
from .scale import SCALE

class LoudConfig(unibody.LlamaConfig):
    model_type = "loud"

class LoudForCausalLM(unibody.LlamaForCausalLM):
    config_class = LoudConfig

    def forward(self, *inputs, **options):
        found = super().forward(*inputs, **options)
        found.logits.mul_(SCALE)
        return found
"""
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
}  # fmt: skip


def test_a_class_of_ones_own(hub: Hub, client: Client, tmp_path: Path) -> None:
    """It takes its modules along, by name or because it is registered; whoever loads and saves it, too; what runs is its own code."""
    package = tmp_path / "ours"
    package.mkdir()
    (package / "modeling_loud.py").write_text(OURS)
    (package / "scale.py").write_text("SCALE = 100.0\n")
    found = client(
        f"sizes = {SIZES}"
        """
sys.path.insert(0, ".")
from ours.modeling_loud import LoudConfig, LoudForCausalLM
model, ids = LoudForCausalLM(LoudConfig(**sizes)).eval(), torch.tensor([[1, 5, 9]])
answers["unknown"] = error(lambda: LoudForCausalLM.register_for_auto_class("AutoModelForDreams"))
LoudConfig.register_for_auto_class()
LoudForCausalLM.register_for_auto_class("AutoModelForCausalLM")
with torch.no_grad():
    answers["expected"] = model(ids).logits.sum().item()
model.push_to_hub("alice/loud")
model.config.push_to_hub("alice/config")
LoudForCausalLM._auto_class = LoudConfig._auto_class = None
unibody.AutoConfig.register("loud", LoudConfig)
unibody.AutoModelForCausalLM.register(LoudConfig, LoudForCausalLM)
model.save_pretrained("registered", ship_code=True)
"""
    )
    (package / "scale.py").write_text("SCALE = 1.0\n")
    again = client("""
answers["refused"] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained("alice/loud"))
def logits(name):
    model = unibody.AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
    with torch.no_grad():
        return model, model(torch.tensor([[1, 5, 9]])).logits.sum().item()
model, answers["pulled"] = logits("alice/loud")
model.push_to_hub("alice/again")
answers["again"], answers["registered"] = logits("alice/again")[1], logits("registered")[1]
answers["config"] = type(unibody.AutoConfig.from_pretrained("alice/config", trust_remote_code=True)).__name__
answers["card"] = Path(unibody.cached_file("alice/loud", "README.md")).read_text()
""")
    assert (
        found["unknown"]
        == "ValueError: 'AutoModelForDreams' is no auto class of models, such as 'AutoModelForCausalLM'"
    )
    assert "LoudForCausalLM of modeling_loud.py, beside scale.py, at " in again["refused"]
    assert found["expected"] == again["pulled"] == again["again"] == again["registered"]
    assert again["config"] == "LoudConfig"
    assert 'unibody.AutoModelForCausalLM.from_pretrained("alice/loud", trust_remote_code=True)' in again["card"]
    for name in ("alice/loud", "alice/again"):
        files = hub.repositories[name].commits[hub.repositories[name].refs["main"]]
        assert json.loads(files["config.json"])["unibody_auto_map"] == {
            "AutoConfig": "modeling_loud.LoudConfig", "AutoModelForCausalLM": "modeling_loud.LoudForCausalLM",
        }  # fmt: skip
        assert files["scale.py"] == b"SCALE = 100.0\n"


def test_code_that_is_left_behind(client: Client) -> None:
    """Saved without its code, a checkpoint names the repository that has it; one of a folder names none that is not there."""
    found = client("""
unibody.LlamaForCausalLM.from_pretrained(folder).push_to_hub("alice/shipped", ship_code=True)
unibody.AutoModelForCausalLM.from_pretrained("alice/shipped").save_pretrained("saved")
answers["saved"] = unibody.AutoConfig.from_pretrained("saved").unibody_auto_map["AutoModelForCausalLM"]
answers["trusted"] = type(unibody.AutoModelForCausalLM.from_pretrained("saved", trust_remote_code=True)).__module__
unibody.AutoModelForCausalLM.from_pretrained(folder).save_pretrained("shipped", ship_code=True)
unibody.AutoModelForCausalLM.from_pretrained("shipped").save_pretrained("copied")
answers["copied"] = "unibody_auto_map" in json.loads(Path("copied/config.json").read_text())
unibody.AutoModelForCausalLM.from_pretrained("shipped", trust_remote_code=True).save_pretrained("along")
answers["along"] = Path("along/modeling_llama.py").is_file()
""")
    assert found["saved"] == "alice/shipped--modeling_llama.LlamaForCausalLM"
    assert found["trusted"].startswith("unibody_modules.alice.shipped.")
    assert (found["copied"], found["along"]) == (False, True)


THEIRS = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from .width import WIDTH

class WordConfig(PreTrainedConfig):
    model_type = "word"

    def __init__(self, width=WIDTH, **options):
        self.width = width
        super().__init__(**options)

class WordModel(PreTrainedModel):
    config_class = WordConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(config.width, config.width)
        self.post_init()

    def forward(self, inputs):
        return self.layer(inputs)
"""


def test_code_for_transformers(client: Client, tmp_path: Path) -> None:
    """A repository that was pushed with transformers, its code too, is opened as what it is, and pushed again."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "modeling_word.py").write_text(THEIRS)
    (package / "width.py").write_text("WIDTH = 4\n")
    found = client("""
sys.path.insert(0, ".")
from theirs.modeling_word import WordConfig, WordModel
WordConfig.register_for_auto_class()
WordModel.register_for_auto_class("AutoModel")
model, inputs = WordModel(WordConfig()), torch.ones(1, 4)
model.push_to_hub("alice/word")
answers["refused"] = error(lambda: unibody.AutoModel.from_pretrained("alice/word"))
again = unibody.AutoModel.from_pretrained("alice/word", trust_remote_code=True)
answers["same"] = torch.equal(again(inputs), model(inputs))
answers["config"] = unibody.AutoConfig.from_pretrained("alice/word", trust_remote_code=True).width
unibody.AutoConfig.register("word", WordConfig)
unibody.AutoModel.register(WordConfig, WordModel)
answers["registered"] = type(unibody.AutoModel.from_pretrained("alice/word")) is WordModel
""")
    assert "WordModel of modeling_word.py, beside width.py, at " in found["refused"]
    assert (found["same"], found["config"], found["registered"]) == (True, 4, True)


def test_code_of_another_repository(mine: Repository, hub: Hub, client: Client) -> None:
    """`owner/name--module.Class` names where the code is."""
    other = hub.repositories["alice/other"] = Repository()
    reference = {"unibody_auto_map": {"AutoConfig": "alice/mine--modeling_mine.MineConfig"}}
    other.commit({"config.json": json.dumps({"model_type": "other", **reference}).encode()}, "first", "main", None)
    found = client("""
answers["no"] = error(lambda: unibody.AutoConfig.from_pretrained("alice/other"))
answers["old"] = error(lambda: unibody.AutoConfig.from_pretrained("alice/other", code_revision="v1"))
made = unibody.AutoConfig.from_pretrained("alice/other", trust_remote_code=True)
answers["made"] = [made.value, made.values["model_type"]]
""")  # fmt: skip
    for name, commit in (("no", mine.refs["main"]), ("old", mine.tags["v1"])):
        assert f"MineConfig of alice/mine, modeling_mine.py, beside deeper.py, helper.py, at {commit}. " in found[name]
    assert found["made"] == [2, "other"]


def test_weights_are_not_fetched_for_nothing(mine: Repository, hub: Hub, client: Client) -> None:
    """A refusal comes before the weights."""
    found = client("answers['no'] = error(lambda: unibody.AutoModel.from_pretrained('alice/mine'))")
    assert found["no"].startswith("UntrustedCodeError: alice/mine brings code of its own")
    assert not [line for line in hub.asked if "model.safetensors" in line]
