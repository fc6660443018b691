"""Single files of a Hub, and what is said where they are not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.conftest import Client
from hub.loopback import Hub, Repository


@pytest.fixture
def filled(hub: Hub, plain: Path) -> Hub:
    """A public, a private and a gated repository of Alice's."""
    files = {file.name: file.read_bytes() for file in plain.iterdir()} | {"inner/note.txt": b"deep"}
    for name, options in (("open", {}), ("closed", {"private": True}), ("gated", {"gated": True})):
        repository = hub.repositories[f"alice/{name}"] = Repository(**options)
        first = repository.commit({**files, "note.txt": b"first"}, "first", "main", None)
        repository.tags["v1"] = first
        repository.commit({**files, "note.txt": b"second"}, "second", "main", first)
    return hub


def test_files(filled: Hub, client: Client) -> None:
    found = client("""
from unibody import cached_file, cached_files, has_file
def text(*arguments, **options):
    return Path(cached_file(*arguments, **options)).read_text()
answers["main"] = text("alice/open", "note.txt")
answers["tag"] = text("alice/open", "note.txt", revision="v1")
answers["inner"] = text("alice/open", "note.txt", subfolder="inner")
answers["folder"] = Path(cached_file(folder, "config.json")) == folder / "config.json"
paths = [Path(path).parent for path in cached_files("alice/open", ["config.json", "note.txt"], cache_dir="elsewhere")]
answers["one commit"] = paths[0] == paths[1] and "elsewhere" in str(paths[0])
answers["has"] = [has_file("alice/open", "note.txt"), has_file("alice/open", "nothing.txt"), has_file(folder, "config.json")]
answers["local"] = text("alice/open", "note.txt", local_files_only=True)
""")  # fmt: skip
    assert found == {
        "main": "second", "tag": "first", "inner": "deep", "folder": True, "one commit": True, "has": [True, False, True],
        "local": "second",
    }  # fmt: skip


def test_fetched_once(filled: Hub, client: Client) -> None:
    """What is in the cache is not fetched again; a file that is asked about is not fetched at all."""
    client("unibody.cached_file('alice/open', 'note.txt')")
    filled.asked.clear()
    client("unibody.cached_file('alice/open', 'note.txt'); unibody.has_file('alice/open', 'config.json')")
    assert not [line for line in filled.asked if line.startswith("GET") and "/resolve/" in line]
    client("unibody.cached_file('alice/open', 'note.txt', force_download=True)")
    assert [line for line in filled.asked if line.startswith("GET") and "/resolve/" in line]


CASES = {
    "file": ("unibody.cached_file('alice/open', 'no.txt')", "alice/open has no file no.txt"),
    "revision": ("unibody.cached_file('alice/open', 'note.txt', revision='v9')", "alice/open has no revision 'v9'"),
    "repository": ("unibody.cached_file('alice/none', 'note.txt')", "alice/none is no repository that you can see"),
    "model": (
        "unibody.AutoModelForCausalLM.from_pretrained('alice/none')",
        "alice/none is no repository that you can see",
    ),
    "config": ("unibody.LlamaConfig.from_pretrained('alice/open', revision='v9')", "alice/open has no revision 'v9'"),
    "private": ("unibody.cached_file('alice/closed', 'note.txt')", "alice/closed is no repository that you can see"),
    "gated": ("unibody.cached_file('alice/gated', 'note.txt')", "alice/gated is gated: ask for access"),
    "name": ("unibody.cached_file('a b', 'note.txt')", "'a b' is neither a folder nor the name of a repository"),
    "local": ("unibody.cached_file('alice/open', 'note.txt', local_files_only=True)", "note.txt is not in the cache"),
    "right": ("unibody.LlamaConfig.from_pretrained(folder).push_to_hub('alice/open')", "you have no right to do this"),
    "folder": ("unibody.cached_file(folder, 'no.txt')", "has no file no.txt"),
}


def test_what_is_said(filled: Hub, client: Client) -> None:
    """Each by HubError, to somebody who is not Alice."""
    lines = [f"answers[{name!r}] = error(lambda: {call})" for name, (call, _) in CASES.items()]
    found = client("\n".join(lines), token="hf_bob")
    for name, (_, message) in CASES.items():
        assert found[name].startswith("HubError: "), found[name]
        assert message in found[name], found[name]


def test_without_a_token_and_without_a_network(filled: Hub, client: Client) -> None:
    call = "answers['error'] = error(lambda: unibody.LlamaConfig.from_pretrained(folder).push_to_hub('alice/new'))"
    assert "the Hub does not know you: log in" in client(call, token=None)["error"]
    filled.address = "http://127.0.0.1:9"
    found = client(f"never_wait()\n{call}" + """
answers["file"] = error(lambda: unibody.cached_file("alice/open", "note.txt"))
answers["model"] = error(lambda: unibody.AutoModelForCausalLM.from_pretrained("alice/open"))
""")  # fmt: skip
    assert "alice/new: the Hub does not answer" in found["error"]
    assert "note.txt is not in the cache, and the Hub is not asked or does not answer" in found["file"]
    assert found["model"].startswith("HubError: alice/open")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a//b", "a/./b", "a\\b", ""])
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    import unibody

    for call in (unibody.cached_file, unibody.has_file):
        with pytest.raises(ValueError, match="does not name a file inside of a repository"):
            call(tmp_path, name)
