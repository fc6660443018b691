"""`from_pretrained("owner/name", revision=...)` with the real Hub client, against a Hub on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub.loopback import Hub, Repository, loopback
from oracle.zoo import first_case

REPOSITORY = "unibody-tests/tiny"

# One process does all loads, because the client reads its settings once, when it is imported.
LOADS = """
import importlib, json, sys

sys.path.insert(0, sys.argv[1])
module, requests = importlib.import_module(sys.argv[2]), json.loads(sys.argv[3])
answers = []
for class_name, repository, revision in requests:
    try:
        found = getattr(module, class_name).from_pretrained(repository, revision=revision)
        if class_name.endswith("Config"):
            answers.append(found.to_dict())
        else:
            answers.append({name: tensor.double().sum().item() for name, tensor in found.state_dict().items()})
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


def load_from_hub(address: str, cache: Path, *requests: tuple[str, str, str | None], offline: bool = False) -> list:
    """What loading each (class, repository, revision) gives.

    The sum of every tensor by name, the keys of a configuration, or the type and the text of an error.
    """
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    file = Path(first_case().module.__file__)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(file.parent), file.stem, json.dumps(requests)],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def served(revisions: dict[str, Path]) -> Iterator[Hub]:
    """A Hub whose repository has a branch for each folder."""
    with loopback() as hub:
        repository = hub.repositories[REPOSITORY] = Repository()
        for name, folder in revisions.items():
            repository.commit({file.name: file.read_bytes() for file in folder.iterdir()}, name, name, None)
        yield hub


def sums(model) -> dict[str, float]:
    return {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}


def fetched(asked: list[str]) -> list[str]:
    """Files that were downloaded, in the order of the requests."""
    paths = [request.partition("/resolve/")[2] for request in asked if request.startswith("GET ")]
    return [path.partition("/")[2] for path in paths if path]


@pytest.fixture(scope="module")
def revisions(checkpoint, tmp_path_factory) -> dict[str, Path]:
    """`main` is one file, beside the same weights in other forms; `v1` holds other values in shards."""
    case = first_case()
    folders = {name: tmp_path_factory.mktemp(name) for name in ("main", "v1", "pickled", "empty")}
    checkpoint(case, "unit").reference().save_pretrained(folders["main"])
    checkpoint(case, "small").reference().save_pretrained(folders["v1"], max_shard_size="40KB")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.onnx", "model.gguf"):
        (folders["main"] / name).write_bytes(b"never asked for")
    (folders["pickled"] / "config.json").write_bytes((folders["main"] / "config.json").read_bytes())
    (folders["pickled"] / "pytorch_model.bin").write_bytes(b"never read")
    (folders["empty"] / "README.md").write_text("nothing yet", encoding="utf-8")
    return folders


def test_revisions_and_the_cache(checkpoint, revisions, tmp_path):
    """Every revision gives its own values, nothing is fetched needlessly or twice, and the cache needs no network."""
    case = first_case()
    name, config = case.class_name, case.config_class.__name__
    expected = {"main": sums(checkpoint(case, "unit").original), "v1": sums(checkpoint(case, "small").original)}
    with served(revisions) as hub:
        requests = [
            (name, REPOSITORY, None),
            (name, REPOSITORY, "v1"),
            (name, REPOSITORY, hub.repositories[REPOSITORY].refs["v1"]),
        ]
        assert load_from_hub(hub.address, tmp_path, *requests) == [expected["main"], expected["v1"], expected["v1"]]
        files = fetched(hub.asked)
        weights = sorted(file for file in files if not file.endswith(".json"))
        assert weights == sorted(["model.safetensors", *(path.name for path in revisions["v1"].glob("*.safetensors"))])
        assert len(files) == len(set(files)), "nothing is fetched twice: both revisions hold the same config.json"
    got = load_from_hub(hub.address, tmp_path, *requests[:2], (config, REPOSITORY, None), offline=True)
    assert got[:2] == [expected["main"], expected["v1"]]
    assert got[2] == case.config_class.from_pretrained(revisions["main"]).to_dict()


def test_a_configuration_is_fetched_without_the_weights(revisions, tmp_path):
    case = first_case()
    with served(revisions) as hub:
        (got,) = load_from_hub(hub.address, tmp_path, (case.config_class.__name__, REPOSITORY, "v1"))
        assert got == case.config_class.from_pretrained(revisions["v1"]).to_dict()
        assert [file for file in fetched(hub.asked) if not file.endswith(".json")] == []


def test_what_the_hub_does_not_have(revisions, tmp_path):
    """Errors name the repository, the revision, or the file that is missing, and give the reason against pickles."""
    name = first_case().class_name
    with served(revisions) as hub:
        unknown, no_revision, no_config, pickled = load_from_hub(
            hub.address,
            tmp_path,
            (name, "unibody-tests/nothing", None),
            (name, REPOSITORY, "v2"),
            (name, REPOSITORY, "empty"),
            (name, REPOSITORY, "pickled"),
        )
        assert "unibody-tests/nothing" in unknown[1]
        assert "v2" in no_revision[1]
        assert "config.json" in no_config[1]
        assert pickled[0] in ("FileNotFoundError", "ValueError")
        assert "safetensors" in pickled[1]
        assert [file for file in fetched(hub.asked) if file.endswith(".bin")] == []
