"""The results in a dataset repository, through the real client."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from hub.loopback import loopback

from bench.command import environment, line
from bench.small_repository import Repository


def run(tmp_path: Path, address: str, token: str) -> subprocess.CompletedProcess[str]:
    repository = Repository(tmp_path / token)
    arguments = ("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / token / "out")
    more = (
        "--repository",
        repository.root,
        "--commit",
        repository.quick,
        "rounds=1",
        "--repo-id",
        "alice/speed",
        "--path-in-repo",
        "runs/1",
    )
    variables = environment() | {
        "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    return subprocess.run(line(*arguments, *more), env=variables, capture_output=True, text=True, timeout=120)


def test_upload(tmp_path: Path) -> None:
    with loopback() as hub:
        done = run(tmp_path, hub.address, "hf_alice")
        assert done.returncode == 0, done.stderr
        repository = hub.repositories["alice/speed"]
        files = repository.commits[repository.refs["main"]]
        assert {
            "README.md",
            "runs/1/index.html",
            "runs/1/summary.json",
            "runs/1/summary.csv",
            "runs/1/summary.md",
        } <= set(files)
        assert not [name for name in files if "sqlite" in name or name.endswith(".log")]
        assert json.loads(files["runs/1/summary.json"])["format_version"] == 1
        assert any("api/datasets/alice/speed/commit" in asked for asked in hub.asked)
        assert f"uploaded to {hub.address}" in done.stdout
        refused = run(tmp_path, hub.address, "hf_bob")
        assert refused.returncode == 1
        assert "alice/speed: you have no right to do this" in refused.stderr
        assert "; the results are in " in refused.stderr
