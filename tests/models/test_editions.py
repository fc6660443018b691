"""The library's editions of models and configurations: instances of the file's classes, recognised by what they can do."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.inputs import token_ids
from quantizers.files import generated

import unibody

llama = generated("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from oracle.quantization import inputs

    folder = tmp_path_factory.mktemp("plain")
    inputs.llama().save_pretrained(folder)
    return folder


def test_what_is_what(folder: Path) -> None:
    model = unibody.LlamaForCausalLM.from_pretrained(folder)
    assert type(model) is unibody.LlamaForCausalLM
    assert type(unibody.AutoModelForCausalLM.from_pretrained(folder)) is unibody.LlamaForCausalLM
    assert type(model).__module__ == "unibody"
    file = unibody.LlamaForCausalLM.__bases__[1]
    assert file.__module__ == "unibody.generated.models.modeling_llama"
    assert isinstance(model, file)
    assert isinstance(model, unibody.PreTrainedModel)
    assert isinstance(model, unibody.PushToHubMixin)
    assert isinstance(llama.LlamaForCausalLM.from_pretrained(folder), unibody.PreTrainedModel)
    assert isinstance(model.config, unibody.PreTrainedConfig)
    assert isinstance(unibody.LlamaConfig(), unibody.PreTrainedConfig)
    assert not isinstance(torch.nn.Linear(2, 2), unibody.PreTrainedModel)
    assert not isinstance(model, unibody.PreTrainedConfig)
    assert not isinstance(llama.LlamaForCausalLM.from_pretrained(folder), unibody.LlamaForCausalLM)


def test_adopted(folder: Path) -> None:
    file_class = unibody.LlamaForCausalLM.__bases__[1]
    model = file_class.from_pretrained(folder)
    assert not hasattr(model, "push_to_hub")
    assert unibody.adopt(model) is model
    assert type(model) is unibody.LlamaForCausalLM
    assert unibody.adopt(model) is model
    with pytest.raises(TypeError, match="Linear is not a class of a generated file"):
        unibody.adopt(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="is another class than unibody's of this name"):
        unibody.adopt(llama.LlamaForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize(
    "name",
    ["LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3ForSequenceClassification", "RobertaForTokenClassification"],
)
def test_dynamic_classes_last(name: str, tmp_path: Path) -> None:
    """Through pickle, deepcopy, torch.save, torch.export and a whole graph of torch.compile, configurations too."""
    kind: Any = getattr(unibody, name)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    options: dict[str, Any] = {}
    if not name.startswith("Roberta"):
        sizes["num_key_value_heads"], options["use_cache"] = 2, False
    model, ids = (
        kind(getattr(unibody, kind.config_class.__name__)(**sizes, pad_token_id=0)).eval(),
        token_ids() % 60 + 2,
    )
    with torch.no_grad():
        expected = model(ids).logits
        torch.save(model, tmp_path / "model.pt")
        copies = [
            pickle.loads(pickle.dumps(model)), copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False),
        ]  # fmt: skip
        for other in copies:
            assert type(other) is kind
            assert (type(other.config), other.config) == (type(model.config), model.config)
            assert torch.equal(other(ids).logits, expected)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(ids, **options).logits, expected)
        exported = torch.export.export(model, (ids,), options)
        torch.testing.assert_close(exported.module()(ids, **options).logits, expected)


def test_what_is_saved_names_the_class(folder: Path, tmp_path: Path) -> None:
    unibody.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    assert unibody.AutoConfig.from_pretrained(tmp_path).architectures == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    "source", [lambda: unibody.LlamaForCausalLM, lambda: type("Mine", (unibody.LlamaForCausalLM,), {})]
)
def test_a_wrapper_renames_the_class(source: Any, folder: Path, tmp_path: Path) -> None:
    """As FSDP2 does; what is written names the class that reads it again, and the code that is shipped is that one's."""
    model = source().from_pretrained(folder)
    model.__class__ = type(f"FSDP{type(model).__name__}", (type("FSDPModule", (), {}), type(model)), {})
    model.save_pretrained(tmp_path, ship_code=True)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == model.config.architectures == ["LlamaForCausalLM"]
    assert written["unibody_auto_map"]["AutoModelForCausalLM"] == "modeling_llama.LlamaForCausalLM"
    assert (tmp_path / "modeling_llama.py").is_file()
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
