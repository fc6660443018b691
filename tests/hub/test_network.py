"""A Hub that fails now and then, changes during a load, or is not there: what goes on, and what is said where nothing does."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from hub.conftest import Client
from hub.loopback import LARGE, Hub, Repository


@pytest.fixture
def opened(hub: Hub, plain: Path) -> Repository:
    """The plain model, beside weights in other forms that nobody needs."""
    repository = hub.repositories["alice/open"] = Repository()
    files = {file.name: file.read_bytes() for file in plain.iterdir()}
    unneeded = ("pytorch_model.bin", "consolidated.safetensors", "model-00001-of-00002.safetensors", "model.onnx")
    repository.commit({**files, **dict.fromkeys(unneeded, b"never asked for")}, "first", "main", None)
    return repository


def test_what_passes_by(hub: Hub, opened: Repository, client: Client) -> None:
    """Too many requests, an error of the server and a cut connection are tried again; only what is needed is fetched, once."""
    hub.faults += [("HEAD .*config.json", 429), ("HEAD .*config.json", 503), ("GET .*model.safetensors", "cut")]
    found = client("""
path = unibody.cached_file("alice/open", "config.json")
model = unibody.AutoModelForCausalLM.from_pretrained("alice/open")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained(folder))
""")
    assert found == {"same": True}
    assert hub.faults == []
    fetched = [line.rpartition("/")[2] for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert sorted(fetched) == ["config.json", "generation_config.json", "model.safetensors", "model.safetensors"]


def test_what_stays(hub: Hub, opened: Repository, client: Client) -> None:
    """It is said what the Hub answered, also where the client wraps that into an error of its own."""
    lines = ["never_wait()"]
    for status in (429, 403, 500, 401):
        hub.faults += [(f"(GET|HEAD) .*/{status}.txt", status)] * 20
        lines.append(f"answers['{status}'] = error(lambda: unibody.cached_file('alice/open', '{status}.txt'))")
    hub.faults += [("GET .*/revision/", 503)] * 20
    lines.append("answers['model'] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained('alice/open'))")
    lines.append(
        "answers['forced'] = error(lambda: unibody.cached_file('alice/open', '429.txt', force_download=True))"
    )
    lines.append("answers['has'] = error(lambda: unibody.has_file('alice/open', '429.txt'))")
    found = client("\n".join(lines))
    right, known = (
        "you have no right to do this: use a token that has it",
        "the Hub does not know you: log in with `hf auth login` or pass token=",
    )
    slower, later = "too many requests: wait a minute and try again", "the Hub answers with status {}: try again later"
    assert {name: said.removeprefix("HubError: alice/open: ") for name, said in found.items()} == {
        "429": slower, "403": right, "500": later.format(500), "401": known, "model": later.format(503), "forced": slower, "has": slower,
    }  # fmt: skip


def test_without_the_network(hub: Hub, opened: Repository, client: Client) -> None:
    """What is in the cache is there; of the rest it is said that it is not; nothing is asked."""
    client("unibody.AutoModelForCausalLM.from_pretrained('alice/open')")
    hub.asked.clear()
    found = client(
        """
answers["model"] = type(unibody.AutoModelForCausalLM.from_pretrained("alice/open")).__name__
answers["file"] = Path(unibody.cached_file("alice/open", "config.json")).name
answers["has"] = [unibody.has_file("alice/open", name) for name in ("config.json", "none.json")]
answers["none"] = error(lambda: unibody.cached_file("alice/open", "none.json"))
answers["tokenizer"] = error(lambda: unibody.AutoTokenizer.from_pretrained("alice/other"))
answers["push"] = error(lambda: unibody.LlamaConfig().push_to_hub("alice/new"))
""",
        HF_HUB_OFFLINE="1",
    )
    assert hub.asked == []
    assert (found["model"], found["file"], found["has"]) == ("LlamaForCausalLM", "config.json", [True, False])
    unasked = "is not in the cache, and the Hub is not asked or does not answer: check the network, HF_HUB_OFFLINE and"
    assert found["none"].startswith(f"HubError: none.json {unasked}")
    assert found["tokenizer"].startswith(f"HubError: alice/other {unasked}")
    assert found["push"] == "HubError: alice/new: the network is not to be used (HF_HUB_OFFLINE is set)"


def test_one_commit_for_a_load(hub: Hub, opened: Repository, client: Client) -> None:
    """Whoever pushes while a model is loaded does not mix two versions: the weights are those of the configuration."""
    first = opened.refs["main"]
    files = {**opened.commits[first], "model.safetensors": b"another model's", "config.json": b"{}"}

    def push() -> None:
        while not any(line.startswith("GET") and line.endswith("/config.json") for line in list(hub.asked)):
            done.wait(0.001)
        opened.commit(files, "second", "main", first)

    done = threading.Event()
    other = threading.Thread(target=push)
    other.start()
    found = client("""
model = unibody.AutoModelForCausalLM.from_pretrained("alice/open")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained(folder))
""")
    other.join()
    assert found == {"same": True}
    assert opened.refs["main"] != first
    assert all(first in line for line in hub.asked if line.startswith("GET") and "/resolve/" in line)


def test_an_upload_in_parts_that_is_cut_off(hub: Hub, client: Client) -> None:
    """In the middle of a file: nothing is committed; pushed again, the whole file is there, bit for bit."""
    script = """
never_wait()
config = unibody.LlamaConfig(vocab_size=4096, hidden_size=256, intermediate_size=256, num_hidden_layers=1,
                             num_attention_heads=4, num_key_value_heads=4)
torch.manual_seed(0)
model = unibody.LlamaForCausalLM(config)
answers["bytes"] = sum(parameter.nbytes for parameter in model.parameters())
answers["error"] = error(lambda: model.push_to_hub("alice/parts"))
answers["sums"] = sums(model)
"""
    hub.faults += [(r"PUT lfs/\w+ part=2", "cut")] * 12
    found = client(script)
    assert found["bytes"] > LARGE
    assert found["error"].startswith("HubError: alice/parts: the Hub does not answer")
    repository = hub.repositories["alice/parts"]
    assert list(repository.commits[repository.refs["main"]]) == [".gitattributes"]
    hub.faults.clear()
    again = client(f"{script}\nanswers['pulled'] = sums(unibody.AutoModelForCausalLM.from_pretrained('alice/parts'))")
    assert again["error"] == "nothing"
    assert again["pulled"] == again["sums"]
    assert any(line.endswith("/complete") for line in hub.asked)


def test_two_processes_push_at_once(hub: Hub, client: Client) -> None:
    """Whatever the order, what is there is the work of one, whole; who comes too late is told, and nothing of the other is lost."""
    found = client("""
import subprocess
code = '''
import sys, torch, unibody
value = float(sys.argv[1])
config = unibody.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                             num_attention_heads=4, num_key_value_heads=4)
config.note = sys.argv[1]
model = unibody.LlamaForCausalLM(config)
for parameter in model.parameters():
    torch.nn.init.constant_(parameter, value)
try:
    print(model.push_to_hub("alice/shared", commit_message=sys.argv[1]).oid)
except unibody.HubError as error:
    print(error)
'''
unibody.LlamaConfig().push_to_hub("alice/shared")
running = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(n)], stdout=subprocess.PIPE, text=True) for n in (1, 2)]
answers["said"] = [process.communicate()[0].strip() for process in running]
model = unibody.AutoModelForCausalLM.from_pretrained("alice/shared")
answers["values"] = sorted({value for tensor in model.state_dict().values() for value in tensor.unique().tolist()})
answers["note"] = model.config.note
""")  # fmt: skip
    repository = hub.repositories["alice/shared"]
    written = [said for said in found["said"] if re.fullmatch("[0-9a-f]{40}", said)]
    told = [said for said in found["said"] if said not in written]
    assert written
    assert all(
        said.startswith("alice/shared has been changed by someone else meanwhile; nothing was") for said in told
    )
    assert set(written) <= set(repository.commits)
    assert found["values"] == [float(found["note"])]


def test_progress_is_shown(hub: Hub, client: Client) -> None:
    """Of what goes up and of what comes down, unless the client is told not to."""
    script = """
sys.stderr = open("bars.txt", "w")
unibody.LlamaForCausalLM.from_pretrained(folder).push_to_hub("alice/bars", max_shard_size="100KB")
unibody.AutoModelForCausalLM.from_pretrained("alice/bars")
sys.stderr.close()
answers["bars"] = Path("bars.txt").read_text()
"""
    shown = client(script, HF_HUB_DISABLE_PROGRESS_BARS="0")["bars"]
    assert "model-00001-of-00004.safetensors: 100%" in shown
    assert "Fetching 4 files: 100%" in shown
    assert "100%" not in client(script)["bars"]
