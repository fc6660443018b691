"""Pushing to and pulling from a Hub, by the real client; transformers is the other client."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.conftest import Client
from hub.loopback import Hub, Repository, sha256


def test_push_and_pull(hub: Hub, client: Client) -> None:
    """The model comes back as it was, by branch, tag and commit; only what has changed is uploaded; the card's snippet runs."""
    found = client("""
model = unibody.LlamaForCausalLM.from_pretrained(folder)
first = model.push_to_hub("alice/tiny", commit_message="First", tags=["demo"])
answers["first"] = first.oid
from huggingface_hub import HfApi
HfApi().create_tag("alice/tiny", tag="v1")
again = model.push_to_hub("alice/tiny")
answers["again"] = again.oid
with torch.no_grad():
    model.lm_head.weight.add_(1)
model.config.note = "changed"
answers["second"] = model.push_to_hub("alice/tiny").oid
answers["sums"] = sums(model)
answers["main"] = sums(unibody.AutoModelForCausalLM.from_pretrained("alice/tiny"))
answers["v1"] = sums(unibody.AutoModelForCausalLM.from_pretrained("alice/tiny", revision="v1"))
answers["by commit"] = sums(unibody.LlamaForCausalLM.from_pretrained("alice/tiny", revision=first.oid))
answers["note"] = unibody.AutoConfig.from_pretrained("alice/tiny").note
card = Path(unibody.cached_file("alice/tiny", "README.md")).read_text()
answers["card"] = card
snippet = card.partition("```python\\n")[2].partition("```")[0]
space = {}
exec(snippet, space)
answers["snippet"] = type(space["model"]).__name__
answers["name"] = space["model"].name_or_path
""")  # fmt: skip
    repository = hub.repositories["alice/tiny"]
    assert found["first"] == found["again"], "nothing has changed"
    assert [repository.titles[sha] for sha in (found["first"], found["second"])] == [
        "First",
        "Upload LlamaForCausalLM",
    ]
    assert found["main"] == found["sums"]
    assert found["v1"] == found["by commit"] != found["main"]
    assert (found["snippet"], found["name"], found["note"]) == ("LlamaForCausalLM", "alice/tiny", "changed")
    assert "library_name: unibody" in found["card"]
    assert "- demo" in found["card"]
    first, second = (repository.commits[found[name]] for name in ("first", "second"))
    assert first["README.md"] == second["README.md"], "a card that is there is left alone"
    assert sum(line.startswith("PUT lfs/") for line in hub.asked) == 2, "the weights, twice"


def test_transformers_reads_and_writes_the_same(hub: Hub, client: Client) -> None:
    found = client("""
import transformers
ids = torch.tensor([[1, 5, 9, 2, 8]])
ours = unibody.LlamaForCausalLM.from_pretrained(folder)
ours.push_to_hub("alice/ours", max_shard_size="100KB")
theirs = transformers.AutoModelForCausalLM.from_pretrained("alice/ours")
answers["ours"] = torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)
theirs.push_to_hub("alice/theirs")
back = unibody.AutoModelForCausalLM.from_pretrained("alice/theirs")
answers["theirs"] = torch.allclose(ours(ids).logits, back(ids).logits, atol=1e-5)
""")  # fmt: skip
    assert found == {"ours": True, "theirs": True}
    files = hub.repositories["alice/ours"].commits[hub.repositories["alice/ours"].refs["main"]]
    assert sum(name.startswith("model-") for name in files) > 2


def test_shards_that_are_no_longer_needed_go(hub: Hub, client: Client) -> None:
    """Else a reader would find an index of old weights first."""
    found = client("""
model = unibody.LlamaForCausalLM.from_pretrained(folder)
model.push_to_hub("alice/tiny", max_shard_size="100KB")
with torch.no_grad():
    model.lm_head.weight.add_(1)
model.push_to_hub("alice/tiny")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained("alice/tiny"))
""")  # fmt: skip
    repository = hub.repositories["alice/tiny"]
    files = repository.commits[repository.refs["main"]]
    assert [name for name in files if name.startswith("model")] == ["model.safetensors"]
    assert found == {"same": True}


def test_quantized_models_and_configurations(hub: Hub, client: Client) -> None:
    found = client("""
config = unibody.CompressedTensorsConfig(config_groups={"W8A8": ["Linear"]}, ignore=["lm_head"])
model = unibody.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
model.push_to_hub("alice/packed", private=True)
back = unibody.LlamaForCausalLM.from_pretrained("alice/packed")
answers["method"] = back.hf_quantizer.quantization_config.quant_method
ids = torch.tensor([[1, 5, 9, 2, 8]])
with torch.no_grad():
    answers["same"] = torch.equal(model(ids).logits, back(ids).logits)
unibody.LlamaConfig.from_pretrained(folder).push_to_hub("alice/config")
answers["config"] = unibody.AutoConfig.from_pretrained("alice/config") == model.config.from_pretrained(folder)
""")  # fmt: skip
    assert found == {"method": "compressed-tensors", "same": True, "config": True}
    assert hub.repositories["alice/packed"].private
    files = hub.repositories["alice/packed"].commits[hub.repositories["alice/packed"].refs["main"]]
    assert b"- compressed-tensors" in files["README.md"]
    assert "alice/config" in hub.repositories


def test_what_has_no_weights(hub: Hub, client: Client) -> None:
    """All that can be saved is pushed with the same options, a processor of one's own too; each card's snippet runs."""
    found = client("""
sys.path.insert(0, ".")
Path("prepare.py").write_text('''
import json
from pathlib import Path
import unibody

class Processor(unibody.PushToHubMixin):
    def __init__(self, tokenizer, longest):
        self.tokenizer, self.longest = tokenizer, longest

    def save_pretrained(self, folder):
        self.tokenizer.save_pretrained(folder)
        Path(folder, "preprocessor_config.json").write_text(json.dumps({"longest": self.longest}))

    @classmethod
    def from_pretrained(cls, name):
        file = unibody.cached_file(name, "preprocessor_config.json")
        return cls(unibody.AutoTokenizer.from_pretrained(name), **json.loads(Path(file).read_text()))

class Notes(unibody.PushToHubMixin):
    def save_pretrained(self, folder):
        Path(folder, "notes.txt").write_text("notes")
''')
from prepare import Notes, Processor
sys.path.insert(0, sys.argv[2])
from oracle.quantization import inputs
import transformers
work = inputs.save_llama(Path("work").absolute())
tokenizer = unibody.AutoTokenizer.from_pretrained(work)
objects = {
    "processor": Processor(tokenizer, 12), "notes": Notes(), "tokenizer": tokenizer, "config": unibody.AutoConfig.from_pretrained(work),
    "generation": unibody.GenerationConfig(top_k=7),
}
for name, pushed in objects.items():
    repository = f"alice/{name}"
    pushed.push_to_hub(
        repository, commit_message="All", commit_description="of it", private=True, token="hf_" + "alice", revision="next", create_pr=False,
        max_shard_size="1GB", tags=["demo"],
    )
    card = Path(unibody.cached_file(repository, "README.md", revision="next")).read_text()
    space = {}
    pushed.push_to_hub(repository)
    exec(card.partition("```python\\n")[2].partition("```")[0], space)
    answers[name] = ["- demo" in card, *sorted(type(value).__name__ for key, value in space.items() if key in ("found", "folder", "tokenizer", "config"))]
answers["longest"] = Processor.from_pretrained("alice/processor").longest
theirs = transformers.AutoTokenizer.from_pretrained("alice/tokenizer")
answers["theirs"] = theirs("t5 t9 t3")["input_ids"] == tokenizer("t5 t9 t3")["input_ids"]
theirs.push_to_hub("alice/theirs")
transformers.GenerationConfig(do_sample=True, top_k=8).push_to_hub("alice/theirs")
answers["back"] = unibody.AutoTokenizer.from_pretrained("alice/theirs")("t5 t9 t3")["input_ids"] == tokenizer("t5 t9 t3")["input_ids"]
answers["top_k"] = [
    transformers.GenerationConfig.from_pretrained("alice/generation").top_k, unibody.GenerationConfig.from_pretrained("alice/theirs").top_k,
]
""")  # fmt: skip
    assert found == {
        "processor": [True, "Processor"], "notes": [True, "str"], "tokenizer": [True, "PreTrainedTokenizerFast"],
        "config": [True, "LlamaConfig"], "generation": [True, "GenerationConfig"], "longest": 12, "theirs": True, "back": True,
        "top_k": [7, 8],
    }  # fmt: skip


def test_pull_requests_and_branches(hub: Hub, client: Client) -> None:
    found = client("""
model = unibody.LlamaForCausalLM.from_pretrained(folder)
answers["first"] = model.push_to_hub("alice/tiny").oid
with torch.no_grad():
    model.lm_head.weight.add_(1)
asked = model.push_to_hub("alice/tiny", create_pr=True)
answers["request"] = asked.pr_revision
answers["pulled"] = sums(model) == sums(unibody.LlamaForCausalLM.from_pretrained("alice/tiny", revision=asked.pr_revision))
model.push_to_hub("alice/tiny", revision="next")
answers["branch"] = sums(model) == sums(unibody.LlamaForCausalLM.from_pretrained("alice/tiny", revision="next"))
""")  # fmt: skip
    assert (found["request"], found["pulled"], found["branch"]) == ("refs/pr/1", True, True)
    refs = hub.repositories["alice/tiny"].refs
    assert refs["main"] == found["first"] not in (refs["refs/pr/1"], refs["next"])


def test_two_writers(hub: Hub, client: Client) -> None:
    """The one who looked before the other wrote is told; what the other wrote stays."""
    found = client("""
model = unibody.LlamaForCausalLM.from_pretrained(folder)
model.push_to_hub("alice/tiny")
from huggingface_hub import HfApi
save = type(model).save_pretrained
look = HfApi.model_info
def slow(self, *arguments, **options):
    info = look(self, *arguments, **options)
    HfApi.model_info = look
    HfApi().upload_file(path_or_fileobj=b"other", path_in_repo="other.txt", repo_id="alice/tiny")
    return info
HfApi.model_info = slow
with torch.no_grad():
    model.lm_head.weight.add_(1)
answers["error"] = error(lambda: model.push_to_hub("alice/tiny"))
answers["again"] = error(lambda: model.push_to_hub("alice/tiny"))
""")  # fmt: skip
    message = "alice/tiny has been changed by someone else meanwhile; nothing was written: try again on top of it"
    assert found == {"error": f"HubError: {message}", "again": "nothing"}
    repository = hub.repositories["alice/tiny"]
    assert repository.commits[repository.refs["main"]]["other.txt"] == b"other"


def test_an_upload_that_is_cut_off(hub: Hub, client: Client) -> None:
    """Nothing is committed; when it is pushed again, parts of large files included, all is there."""
    hub.faults += [("POST .*/commit/", 503)] * 12
    script = """
from huggingface_hub import utils
model = unibody.LlamaForCausalLM.from_pretrained(folder)
answers["error"] = error(lambda: model.push_to_hub("alice/tiny"))
"""
    found = client(script)
    repository = hub.repositories["alice/tiny"]
    assert found["error"].startswith("HubError: alice/tiny: the Hub answers with status 503")
    assert list(repository.commits[repository.refs["main"]]) == [".gitattributes"]
    uploads = sum(line.startswith("PUT lfs/") for line in hub.asked)
    hub.faults.clear()
    assert client(script) == {"error": "nothing"}
    assert sum(line.startswith("PUT lfs/") for line in hub.asked) == uploads, "what is there is not sent again"
    assert "model.safetensors" in repository.commits[repository.refs["main"]]


def test_a_download_that_is_cut_off(hub: Hub, client: Client) -> None:
    """It goes on after the last block that the client has written, and the file is whole."""
    data = bytes(range(256)) * 100_000
    repository = hub.repositories["alice/large"] = Repository()
    repository.commit({"large.bin": data}, "Large", "main", None)
    hub.halved.append("large.bin")
    found = client("""
import hashlib
path = Path(unibody.cached_file("alice/large", "large.bin"))
answers["file"] = hashlib.sha256(path.read_bytes()).hexdigest()
""")
    assert found["file"] == sha256(data)
    (start,) = hub.resumed
    assert 0 < start <= len(data) // 2


@pytest.mark.slow
def test_a_large_model_in_shards(hub: Hub, client: Client) -> None:
    """100 MB, in shards, uploaded in parts; of another revision's files only those that are needed are fetched."""
    found = client("""
config = unibody.LlamaConfig(vocab_size=4096, hidden_size=1024, intermediate_size=1024, num_hidden_layers=2,
                             num_attention_heads=8, num_key_value_heads=8)
model = unibody.LlamaForCausalLM(config)
answers["bytes"] = sum(parameter.nbytes for parameter in model.parameters())
model.push_to_hub("alice/large", max_shard_size="30MB")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained("alice/large"))
""")  # fmt: skip
    assert found["bytes"] > 90_000_000
    assert found["same"]
    assert any("complete" in line for line in hub.asked), "parts"
    files = hub.repositories["alice/large"].commits[hub.repositories["alice/large"].refs["main"]]
    assert sum(name.startswith("model-") for name in files) >= 3


@pytest.mark.slow
def test_xet(hub: Hub, client: Client, tmp_path: Path) -> None:
    """40 MB through the client's Xet, there and back; of a changed model only what has changed is stored."""
    hub.storage = tmp_path / "storage"
    hub.storage.mkdir()
    found = client("""
config = unibody.LlamaConfig(vocab_size=4096, hidden_size=512, intermediate_size=1024, num_hidden_layers=2,
                             num_attention_heads=8, num_key_value_heads=8)
model = unibody.LlamaForCausalLM(config)
answers["bytes"] = sum(parameter.nbytes for parameter in model.parameters())
model.push_to_hub("alice/large")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained("alice/large"))
""")  # fmt: skip
    assert found["bytes"] > 30_000_000
    assert found["same"]
    assert any("xet-write-token" in line for line in hub.asked)
    assert any("xet-read-token" in line for line in hub.asked)
    assert not any("lfs/objects" in line for line in hub.asked), "not the older way"
    before = xorbs(hub.storage)
    client("""
model = unibody.AutoModelForCausalLM.from_pretrained("alice/large")
with torch.no_grad():
    model.model.norm.weight.add_(1)
model.push_to_hub("alice/large", revision="next")
answers["same"] = sums(model) == sums(unibody.AutoModelForCausalLM.from_pretrained("alice/large", revision="next"))
""")  # fmt: skip
    assert before > 30_000_000
    assert xorbs(hub.storage) - before < 1_000_000


def xorbs(storage: Path) -> int:
    """The bytes that a storage of Xet holds, apart from what it notes of them."""
    return sum(path.stat().st_size for path in storage.rglob("*") if path.is_file() and path.suffix != ".mdb")
