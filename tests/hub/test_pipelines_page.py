"""The code of docs/pipelines.md runs, from top to bottom, against a Hub that has the checkpoints which it names."""

from __future__ import annotations

from pathlib import Path

from oracle.pipelines import ENTITIES, write_bert, write_llama
from pages import ROOT, code

from hub.conftest import Client
from hub.loopback import Hub, Repository


def test_page(hub: Hub, client: Client, tmp_path: Path) -> None:
    named = {"id2label": ENTITIES, "label2id": {name: index for index, name in ENTITIES.items()}}
    folders = {
        "masks": write_bert(tmp_path / "masks", "BertForMaskedLM"),
        "entities": write_bert(tmp_path / "entities", "BertForTokenClassification", **named),
        "llama": write_llama(tmp_path / "llama"),
    }
    for name, folder in folders.items():
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        repository = hub.repositories[f"alice/{name}"] = Repository()
        repository.commit(files, "first", "main", None)
    found = client(f"sys.path.insert(0, {str(ROOT / 'examples')!r})\n{code('docs/pipelines.md')}" + """
answers["all"] = [len(best), type(word).__name__, len(words), text[:7], len(new), entities[-1]["end"] > 600, bits > 0]
""")  # fmt: skip
    assert found == {"all": [2, "str", 2, "The cat", 2, True, True]}
