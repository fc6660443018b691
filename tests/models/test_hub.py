"""`from_pretrained("owner/name", revision=...)` with the real Hub client, against a Hub on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracle.hub_server import commit_of, hub
from oracle.zoo import first_case

REPOSITORY = "unibody-tests/tiny"

# One process does all loads, because the client reads its settings once, when it is imported.
LOADS = """
import importlib, json, sys

module, class_name, requests = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
made = getattr(importlib.import_module(module), class_name)
answers = []
for name, revision in requests:
    try:
        model = made.from_pretrained(name, revision=revision)
        answers.append({name: tensor.double().sum().item() for name, tensor in model.state_dict().items()})
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


def load_from_hub(address: str, cache: Path, *requests: tuple[str, str | None], offline: bool = False) -> list:
    """What each load gives: the sum of every tensor by name, or the error's type and text."""
    case = first_case()
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
    arguments = [case.module.__name__, case.class_name, json.dumps(requests)]
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *arguments],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sums(model) -> dict[str, float]:
    return {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def revisions(checkpoint, tmp_path_factory) -> dict[str, Path]:
    """`main` is one file, `v1` holds other values in shards."""
    case = first_case()
    folders = {name: tmp_path_factory.mktemp(name) for name in ("main", "v1")}
    checkpoint(case, "unit").reference().save_pretrained(folders["main"])
    checkpoint(case, "small").reference().save_pretrained(folders["v1"], max_shard_size="40KB")
    (folders["main"] / "pytorch_model.bin").write_bytes(b"never asked for")
    return folders


def test_revisions_and_the_cache(checkpoint, revisions, tmp_path):
    """Every revision gives its own values, only what is needed is fetched, and a cached one needs no network."""
    case = first_case()
    expected = {"main": sums(checkpoint(case, "unit").original), "v1": sums(checkpoint(case, "small").original)}
    with hub(REPOSITORY, revisions) as (address, asked):
        got = load_from_hub(
            address, tmp_path, (REPOSITORY, None), (REPOSITORY, "v1"), (REPOSITORY, commit_of("v1"))
        )
        assert got == [expected["main"], expected["v1"], expected["v1"]]
        fetched = [request.rpartition("/")[2] for request in asked if request.startswith("GET") and "resolve" in request]
        assert sorted(set(fetched)) == sorted(
            {"config.json", "model.safetensors", "model.safetensors.index.json"}
            | {path.name for path in revisions["v1"].glob("*.safetensors")}
        )
        assert len(fetched) == len(set(fetched)) + 1, "config.json of two revisions, everything else once"
    got = load_from_hub(address, tmp_path, (REPOSITORY, None), (REPOSITORY, "v1"), offline=True)
    assert got == [expected["main"], expected["v1"]]


def test_what_the_hub_does_not_have(revisions, tmp_path):
    """Errors name the repository, the revision or the file that is missing."""
    with hub(REPOSITORY, {**revisions, "empty": tmp_path}) as (address, _):
        unknown, no_revision, no_config = load_from_hub(
            address, tmp_path, ("unibody-tests/nothing", None), (REPOSITORY, "v2"), (REPOSITORY, "empty")
        )
    assert "unibody-tests/nothing" in unknown[1]
    assert "v2" in no_revision[1]
    assert "config.json" in no_config[1]
