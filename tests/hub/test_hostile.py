"""Repositories and folders that mean harm, or are broken: a clear error, nothing executed, nothing outside the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import unibody
from hub.conftest import Client
from hub.loopback import Hub, Repository
from unibody.dynamic_modules import find_reference
from unibody.model_card import model_card

NESTED = '{"model_type": "llama", "a": ' + "[" * 100_000 + "]" * 100_000 + "}"
DEEP = '{"model_type": "llama", "a": ' + "[" * 400 + "]" * 400 + "}"


def repository(hub: Hub, name: str, files: dict[str, bytes]) -> None:
    hub.repositories[name] = Repository()
    hub.repositories[name].commit(files, "first", "main", None)


def test_an_index_that_leads_out(hub: Hub, plain: Path, client: Client, tmp_path: Path) -> None:
    config = (plain / "config.json").read_bytes()
    names = ["../../../evil.safetensors", "/tmp/evil.safetensors", "a\\..\\evil.safetensors", "", ".", "*", "sub/x.safetensors"]  # fmt: skip
    for number, name in enumerate(names):
        index = json.dumps({"weight_map": {"lm_head.weight": name}}).encode()
        files = {
            "config.json": config,
            "model.safetensors.index.json": index,
            "sub/x.safetensors": b"",
            "pytorch_model.bin": b"",
        }
        repository(hub, f"alice/index{number}", files)
    found = client(f"""
for number in range({len(names)}):
    answers[number] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained(f"alice/index{{number}}"))
""")
    assert len(found) == len(names)
    for text in found.values():
        assert text.startswith("ValueError: "), text
        assert "model.safetensors.index.json names" in text
        assert text.endswith("which is not in its folder: refused")
    assert not [line for line in hub.asked if "evil" in line or line.endswith((".bin", "x.safetensors"))]


def test_pickled_weights_on_the_hub(hub: Hub, plain: Path, client: Client) -> None:
    config = (plain / "config.json").read_bytes()
    repository(hub, "alice/pickled", {"config.json": config, "pytorch_model.bin": b"never read"})
    repository(hub, "alice/nothing", {"config.json": config})
    found = client("""
for name in ("pickled", "nothing"):
    answers[name] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained(f"alice/{name}"))
answers["class"] = error(lambda: unibody.LlamaForCausalLM.from_pretrained("alice/pickled"))
""")  # fmt: skip
    assert (
        found["pickled"]
        == found["class"]
        == (
            "ValueError: alice/pickled holds only pickled weights (pytorch_model.bin), which run code when they are read: "
            "convert them to safetensors, or use a revision of the repository that has them"
        )
    )
    assert "holds neither model.safetensors nor model.safetensors.index.json" in found["nothing"]
    assert not [line for line in hub.asked if line.startswith("GET") and line.endswith(".bin")]


@pytest.mark.parametrize("name", ["AutoConfig", "LlamaConfig", "AutoModelForCausalLM", "LlamaForCausalLM"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NESTED, "is nested too deeply for a configuration"),
        (DEEP, "is nested too deeply for a configuration"),
        ('{"model_type": "llama", "a": "' + "x" * 20_000_000 + '"}', "has 20,000,0.. bytes, and a configuration at most"),
        ('{"model_type": "llama", "hidden_size": 1' + "0" * 10_000 + "}", "is not valid JSON"),
    ],
    ids=["endless", "deep", "huge", "number"],
)  # fmt: skip
def test_a_configuration_out_of_all_bounds(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=rf"config\.json {message}"):
        getattr(unibody, name).from_pretrained(tmp_path)
    assert time.perf_counter() - begin < 2


def test_an_index_out_of_all_bounds(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((plain / "config.json").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(NESTED)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json is nested too deeply"):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "entries",
    [5, "evil", ["a.B"], {"AutoConfig": 5}, {"AutoConfig": ["a.B"]}, {"AutoConfig": {"a": "b"}}, {"AutoConfig": "../evil.X"},
     {"AutoConfig": "a/b.X"}, {"AutoConfig": "../..--evil.X"}, {"AutoConfig": "a/..--evil.X"}, {"AutoConfig": "/a/b--evil.X"},
     {"AutoConfig": "a.B\n"}, {"AutoConfig": "a.b.C"}, {"AutoConfig": "./x--a.B"}],
    ids=repr,
)  # fmt: skip
def test_what_names_no_class(entries: Any) -> None:
    for key in ("auto_map", "unibody_auto_map"):
        with pytest.raises(ValueError, match=r"expected module\.Class, such as 'modeling_mine\.MineModel'"):
            find_reference({key: entries}, "AutoConfig")


def test_code_of_another_repository_is_never_a_folders(hub: Hub, client: Client) -> None:
    """A reference to a repository does not lead to a folder of this name that happens to be here."""
    reference = {"auto_map": {"AutoConfig": "alice/code--evil.X"}}
    repository(hub, "alice/mine", {"config.json": json.dumps({"model_type": "mine", **reference}).encode()})
    found = client("""
Path("alice/code").mkdir(parents=True)
Path("alice/code/evil.py").write_text("open('ran.txt', 'w')")
answers["error"] = error(lambda: unibody.AutoConfig.from_pretrained("alice/mine", trust_remote_code=True))
answers["ran"] = Path("ran.txt").exists()
""")  # fmt: skip
    assert found["error"].startswith("HubError: alice/code is no repository that you can see")
    assert not found["ran"]


@pytest.mark.parametrize("settings", [5, "gptq", ["gptq"], True])
def test_quantization_that_is_none(settings: Any, plain: Path, tmp_path: Path) -> None:
    values = json.loads((plain / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "quantization_config": settings}))
    (tmp_path / "model.safetensors").write_bytes((plain / "model.safetensors").read_bytes())
    with pytest.raises(
        ValueError, match=r"config\.json says quantization_config .*, expected an object of keys and val"
    ):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_card_of_a_hostile_configuration() -> None:
    """What a configuration says cannot add lines to the metadata, or code to the snippet."""
    config = {
        "model_type": "x\nlicense: other", "architectures": ["A; import os"], "quantization_config": {"quant_method": "a: [b"},
    }  # fmt: skip
    text = model_card("alice/x", config, base_model="bob/y\nlicense: other", tags=["c\n---", "no"])
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert head.splitlines()[1:] == [
        'base_model: "bob/y\\nlicense: other"',
        "tags:",
        '- "x\\nlicense: other"',
        '- "a: [b"',
        '- "c\\n---"',
        '- "no"',
    ]
    assert "import os" not in body
    for odd in (5, [5], {}, "LlamaForCausalLM", None):
        assert "# x" in model_card(
            "alice/x", {"architectures": odd, "quantization_config": odd, "unibody_auto_map": odd}
        )


def test_a_token_is_written_nowhere(hub: Hub, client: Client, tmp_path: Path) -> None:
    """Not in a log at the most talkative level, nor an error, nor any file: of the cache, of the repository, or what is saved."""
    client("""
import os, logging
os.environ["HF_DEBUG"] = "1"
unibody.logging.set_verbosity_debug()
from huggingface_hub import logging as client_logging
client_logging.set_verbosity_debug()
logging.basicConfig(level=logging.DEBUG)
import traceback
token = "hf_" + "alice"
model = unibody.LlamaForCausalLM.from_pretrained(folder)
model.push_to_hub("alice/tiny", token=token, private=True, ship_code=True)
again = unibody.AutoModelForCausalLM.from_pretrained("alice/tiny", token=token, trust_remote_code=True)
again.save_pretrained("saved")
torch.save(again, "saved.pt")
unibody.AutoConfig.from_pretrained("alice/tiny", token=token).save_pretrained("config")
sys.path.insert(0, sys.argv[2])
from oracle.quantization import inputs
work = inputs.save_llama(Path("work").absolute())
unibody.AutoTokenizer.from_pretrained(work, token=token).push_to_hub("alice/tokenizer", token=token, private=True)
tokenizer = unibody.AutoTokenizer.from_pretrained("alice/tokenizer", token=token)
tokenizer.save_pretrained("tokenizer")
unibody.pipeline("text-generation", work, token=token).push_to_hub("alice/pipe", token=token, private=True)
pipe = unibody.pipeline(model="alice/pipe", token=token)
pipe.save_pretrained("pipe")
unibody.GenerationConfig.from_pretrained("alice/pipe", token=token).save_pretrained("generation")
settings = unibody.TrainingArguments("run", hub_token=token, report_to="none")
print(vars(tokenizer), vars(pipe), settings, settings.to_json_string())
for call in (
    lambda: again.push_to_hub("bob/tiny", token=token),
    lambda: unibody.AutoConfig.from_pretrained("alice/none", token=token),
    lambda: unibody.cached_file("alice/tiny", "none.txt", token=token),
    lambda: unibody.AutoConfig.from_pretrained("alice/tiny", token=token, revision="v9"),
    lambda: unibody.AutoConfig.from_pretrained(folder, token=token, use_auth_token=token),
):
    try:
        call()
    except Exception:
        traceback.print_exc()
""", token=None)  # fmt: skip
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if b"hf_alice" in path.read_bytes()]
    pushed = [files for repository in hub.repositories.values() for files in repository.commits.values()]
    assert {"alice/tiny", "alice/tokenizer", "alice/pipe"} == hub.repositories.keys()
    assert not [name for files in pushed for name, data in files.items() if b"hf_alice" in data]
