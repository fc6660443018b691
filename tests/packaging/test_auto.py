"""The auto classes: which class they find, and what they say if there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unibody
from unibody.generated.registry import MODELS

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
PAIRS = [(model_type, auto) for model_type, entry in MODELS.items() for auto in entry["classes"]]


def config_of(model_type: str) -> Any:
    return getattr(unibody, MODELS[model_type]["config"])(**TINY)


def first_tensor(output: Any) -> torch.Tensor:
    """Hidden states or logits: the loss before them is None."""
    return next(value for value in output if value is not None)


@pytest.mark.parametrize(("model_type", "auto"), PAIRS)
def test_checkpoint_comes_back_as_its_class(tmp_path: Path, model_type: str, auto: str) -> None:
    torch.manual_seed(0)
    model = getattr(unibody, auto).from_config(config_of(model_type)).eval()
    model.save_pretrained(tmp_path)
    again = getattr(unibody, auto).from_pretrained(tmp_path)
    assert type(model) is type(again) is getattr(unibody, MODELS[model_type]["classes"][auto])
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(first_tensor(model(ids)), first_tensor(again(ids)))
    assert unibody.AutoConfig.from_pretrained(tmp_path) == model.config


def test_options_reach_the_class(tmp_path: Path) -> None:
    unibody.AutoModelForCausalLM.from_config(config_of("llama")).save_pretrained(tmp_path)
    model, info = unibody.AutoModelForCausalLM.from_pretrained(
        str(tmp_path), dtype="bfloat16", attn_implementation="eager", output_loading_info=True
    )
    assert (model.dtype, model.config.attn_implementation) == (torch.bfloat16, "eager")
    assert set(info) == {"missing_keys", "unexpected_keys", "mismatched_keys"}


def write_config(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    return file


def message(auto_class: Any, folder: Path) -> str:
    with pytest.raises(ValueError, match="model_type") as caught:
        auto_class.from_pretrained(folder)
    return str(caught.value)


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of a fixed size: its names are part of the messages."""
    plain = {"module": "modeling_plain", "config": "PlainConfig", "classes": {"AutoModel": "PlainModel"}}
    monkeypatch.setattr(unibody.auto, "MODELS", {"llama": MODELS["llama"], "plain": plain})


@pytest.mark.usefixtures("two_models")
@pytest.mark.parametrize(
    ("model_type", "known"), [("plane", "plain, llama"), ("lama", "llama, plain"), ("xyz", "llama, plain")]
)
def test_unknown_model_type(tmp_path: Path, model_type: str, known: str) -> None:
    file = write_config(tmp_path, model_type=model_type)
    assert message(unibody.AutoModel, tmp_path) == (
        f"{file} says model_type '{model_type}'; generated files read {known}: correct it if it should be one of these; "
        "if not, write modular/models/modular_<name>.py and run `unibody generate`"
    )


@pytest.mark.usefixtures("two_models")
def test_config_without_model_type(tmp_path: Path) -> None:
    file = write_config(tmp_path, hidden_size=16)
    assert message(unibody.AutoConfig, tmp_path) == (
        f"{file} has no model_type; generated files read llama, plain: correct it if it should be one of these; "
        "if not, write modular/models/modular_<name>.py and run `unibody generate`"
    )


@pytest.mark.usefixtures("two_models")
def test_model_without_that_head(tmp_path: Path) -> None:
    file = write_config(tmp_path, model_type="plain")
    assert message(unibody.AutoModelForCausalLM, tmp_path) == (
        f"{file} says model_type 'plain', which has no AutoModelForCausalLM: use one of AutoConfig, AutoModel"
    )


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        unibody.AutoModel.from_pretrained(tmp_path)


def test_neither_folder_nor_repository(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        unibody.AutoModel.from_pretrained(tmp_path / "gone")
