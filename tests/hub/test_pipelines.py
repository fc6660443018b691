"""Pipelines from a Hub, and a pipeline of one's own that goes there with its code and comes back where it is trusted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from oracle.pipelines import write_bert, write_llama

from hub.conftest import Client
from hub.loopback import Hub

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = f"sys.path.insert(0, {str(EXAMPLES)!r})\nfrom custom_pipeline import SurprisalPipeline\n"
PUSH = """
pipe = unibody.pipeline("surprisal", source, worst=2)
answers["before"] = pipe("the cat sat")
pipe.push_to_hub("alice/surprisal", commit_message="A task of our own")
unibody.register_pipeline("mine", SurprisalPipeline, default={"model": ("alice/surprisal", "main")})
answers["default"] = unibody.pipeline("mine", worst=2)("the cat sat")
"""
REFUSED = """
answers["refused"] = [
    error(lambda: unibody.pipeline(**options)) for options in (
        {"model": "alice/surprisal"}, {"task": "surprisal", "model": "alice/surprisal"},
        {"model": "alice/surprisal", "trust_remote_code": False},
    )
]
answers["imported"] = "custom_pipeline" in " ".join(sys.modules)
"""
PULL = """
pipe = unibody.pipeline(model="alice/surprisal", trust_remote_code=True)
answers["after"] = pipe("the cat sat", worst=2)
answers["facts"] = [pipe.task, type(pipe).__name__, type(pipe).__module__.partition(".")[0], type(pipe.model).__module__]
answers["other"] = unibody.pipeline("text-generation", "alice/surprisal").task
answers["batch"] = pipe(["the cat sat", "a"*5], batch_size=2, worst=2)[0]["bits"]
pipe.save_pretrained("again")
answers["again"] = sorted(path.name for path in Path("again").iterdir() if path.suffix == ".py")
answers["from folder"] = unibody.pipeline(model="again", trust_remote_code=True)("the cat sat", worst=2)
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


def test_own_pipeline(hub: Hub, client: Client, llama: Path, tmp_path: Path) -> None:
    """Its code runs only where it is trusted; the refusal names it and the commit, and comes before code and weights are fetched."""
    pushed = client(f"{OWN}source = {str(llama)!r}\n{PUSH}")
    assert pushed["default"] == (before := pushed["before"])
    repository = hub.repositories["alice/surprisal"]
    files = repository.commits[repository.refs["main"]]
    assert files["custom_pipeline.py"] == (EXAMPLES / "custom_pipeline.py").read_bytes()
    assert json.loads(files["config.json"])["custom_pipelines"] == {
        "surprisal": {"impl": "custom_pipeline.SurprisalPipeline", "pt": ["AutoModelForCausalLM"]}
    }
    assert {"tokenizer.json", "model.safetensors"} <= files.keys()
    card = files["README.md"].decode()
    assert 'pipe = unibody.pipeline("surprisal", model="alice/surprisal", trust_remote_code=True)' in card
    hub.asked.clear()
    shutil.rmtree(tmp_path / "hub")  # the cache
    found = client(REFUSED)
    assert [line for line in hub.asked if "config.json" in line]
    assert not [line for line in hub.asked if "model.safetensors" in line or ".py" in line]
    refusal = (
        "UntrustedCodeError: alice/surprisal brings code of its own, which would run on this machine: "
        f"SurprisalPipeline of custom_pipeline.py, at {repository.refs['main']}. "
        "Read it, and if you trust it, pass trust_remote_code=True"
    )
    assert found["refused"] == [refusal] * 3
    assert not found["imported"]
    found = client(PULL)
    assert found["after"] == found["from folder"] == before
    assert found["batch"] == pytest.approx(before["bits"], abs=1e-5)
    assert found["facts"] == ["surprisal", "SurprisalPipeline", "unibody_modules", "unibody"]
    assert found["other"] == "text-generation"
    assert found["again"] == ["custom_pipeline.py"]


def test_a_task_by_revision(hub: Hub, client: Client, tmp_path: Path) -> None:
    """Model and tokenizer come from one commit; a task, from what the checkpoint is for."""
    folder = str(write_bert(tmp_path / "masks", "BertForMaskedLM"))
    found = client(f"folder = {folder!r}" + """
pipe = unibody.pipeline(model=folder)
pipe.push_to_hub("alice/masks", revision="first")
pipe.model.get_input_embeddings().weight.data.zero_()
pipe.push_to_hub("alice/masks", max_shard_size="10KB")
answers["first"] = unibody.pipeline(model="alice/masks", revision="first")("the [MASK]")
answers["folder"] = unibody.pipeline("fill-mask", folder)("the [MASK]")
answers["main"] = unibody.pipeline(model="alice/masks", tokenizer=folder)("the [MASK]")
answers["missing"] = error(lambda: unibody.pipeline(model="alice/nothing"))
""")  # fmt: skip
    assert found["first"] == found["folder"] != found["main"]
    assert found["missing"].startswith("HubError: alice/nothing is no repository that you can see")
    card = hub.repositories["alice/masks"]
    assert "model.safetensors.index.json" in card.commits[card.refs["main"]]
    assert b'pipe = unibody.pipeline("fill-mask", model="alice/masks")' in card.commits[card.refs["main"]]["README.md"]


def test_broken_entries(client: Client, llama: Path) -> None:
    """What config.json says under custom_pipelines is checked before anything runs."""
    found = client(f"source = {str(llama)!r}" + """
import shutil
work = Path("work").absolute()
shutil.copytree(source, work)
config = json.loads((work / "config.json").read_text())
for entry in (5, ["a"], {"mine": "a.B"}, {"mine": {"impl": "../evil.X"}}, {"mine": {"impl": "nothing"}}, {"mine": {"impl": 5}}):
    (work / "config.json").write_text(json.dumps({**config, "custom_pipelines": entry}))
    answers[str(entry)] = error(lambda: unibody.pipeline("mine", work, trust_remote_code=True))
""")  # fmt: skip
    assert len(found) == 6
    for said in found.values():
        assert said.startswith("ValueError: ")
        assert any(
            words in said for words in ("expected {'impl': 'module.Class'", "expected tasks with their classes")
        )


def test_a_program_cannot_be_shipped(client: Client, llama: Path) -> None:
    found = client(OWN + f"folder = {str(llama)!r}" + """
class Mine(SurprisalPipeline):
    pass
unibody.register_pipeline("mine", Mine)
pipe = unibody.pipeline("mine", folder)
answers["error"] = error(lambda: pipe.save_pretrained("out"))
""")  # fmt: skip
    assert found["error"] == (
        "ValueError: Mine of __main__ cannot be shipped, for its code would run as a program or is not in a file: define it "
        "at the top of a module of its own, and import it"
    )


def test_example_is_a_program(llama: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "custom_pipeline.py"), str(llama), "the cat", "a dog"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith("bits for each token")]) == 2
