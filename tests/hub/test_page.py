"""The code of docs/hub.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

from hub.conftest import Client
from hub.loopback import Hub

PAGE = Path(__file__).parents[2] / "docs/hub.md"


def test_page(hub: Hub, client: Client) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    found = client(code + "\nanswers['all'] = [type(again).__name__, Path(path).name, there, type(shipped).__name__]")
    assert found == {"all": ["LlamaForCausalLM", "config.json", True, "LlamaForCausalLM"]}
    assert hub.repositories["alice/tiny"].private
    assert "refs/pr/1" in hub.repositories["alice/tiny"].refs
