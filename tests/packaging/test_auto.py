"""What the auto classes say of a model type that they do not know, in full; which class they find, tests/models asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import unibody
from unibody.generated.registry import MODELS


@pytest.fixture(autouse=True)
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of a fixed size: its names are part of the messages."""
    plain = {"module": "modeling_plain", "config": "PlainConfig", "classes": {"AutoModel": "PlainModel"}}
    monkeypatch.setattr("unibody.model_types.MODELS", {"llama": MODELS["llama"], "plain": plain})


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"model_type": "plane"}, "says model_type 'plane'; generated files read plain, llama"),
        ({"model_type": "lama"}, "says model_type 'lama'; generated files read llama, plain"),
        ({"model_type": ["llama"]}, "says model_type ['llama']; generated files read llama, plain"),
        ({"model_type": None}, "has no model_type; generated files read llama, plain"),
        ({"hidden_size": 16}, "has no model_type; generated files read llama, plain"),
    ],
)
@pytest.mark.parametrize("auto_class", ["AutoConfig", "AutoModelForCausalLM"])
def test_unknown_model_type(auto_class: str, values: dict[str, Any], found: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match="model_type") as caught:
        getattr(unibody, auto_class).from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{file} {found}: correct it if it should be one of these; "
        "if not, write modular/models/modular_<name>.py and run `unibody generate`"
    )


def test_configuration_of_an_unknown_model_type() -> None:
    class PlaneConfig:
        model_type = "plane"

    with pytest.raises(ValueError, match=r"^PlaneConfig says model_type 'plane'; generated files read plain, llama: "):
        unibody.AutoModel.from_config(PlaneConfig())
