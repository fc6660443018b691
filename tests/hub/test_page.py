"""The code of docs/hub.md runs, from top to bottom."""

from __future__ import annotations

from pathlib import Path

from pages import code

from hub.conftest import Client
from hub.loopback import Hub
from hub.test_dynamic_modules import OURS, SIZES


def test_page(hub: Hub, client: Client, tmp_path: Path) -> None:
    (tmp_path / "modeling_loud.py").write_text(OURS.replace("from .scale import SCALE", "SCALE = 2.0"))
    found = client(
        f"sys.path.insert(0, '.')\nsizes = {SIZES}\n{code('docs/hub.md')}"
        "answers['all'] = [type(again).__name__, Path(path).name, there, type(shipped).__name__, longest, type(loud).__name__]"
    )
    assert found == {"all": ["LlamaForCausalLM", "config.json", True, "LlamaForCausalLM", 12, "LoudForCausalLM"]}
    assert hub.repositories["alice/tiny"].private
    assert "refs/pr/1" in hub.repositories["alice/tiny"].refs
