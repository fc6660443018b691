"""A Hub on the loopback interface and the real client: scripts run in processes of their own, which read its address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle.quantization import inputs

from hub.loopback import Hub, loopback

Client = Callable[..., Any]
BEGIN = """
import json, sys
from pathlib import Path
import torch
import unibody
folder, answers = Path(sys.argv[1]), {}
def sums(model):
    return {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}
def never_wait():  # between the client's tries
    import time
    time.sleep = lambda seconds: None
def error(call):
    try:
        call()
    except Exception as caught:
        return f"{type(caught).__name__}: {caught}"
    return "nothing"
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback() as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama().save_pretrained(folder)
    return folder


@pytest.fixture
def client(hub: Hub, plain: Path, tmp_path: Path) -> Client:
    """Runs a script, in which `folder` is the plain model's; what it leaves in `answers`."""

    def run(script: str, token: str | None = "hf_alice", **variables: str) -> Any:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": str(int(hub.storage is None)), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        environment |= variables if token is None else {"HF_TOKEN": token, **variables}
        text = f"{BEGIN}{script}\nprint(json.dumps(answers))"
        command = [sys.executable, "-W", "ignore", "-c", text, str(plain), str(Path(__file__).parents[1])]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "hf_alice" not in done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
