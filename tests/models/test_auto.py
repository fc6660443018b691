"""The auto classes find the generated class by the `model_type` of a checkpoint."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from oracle.inputs import token_ids
from oracle.reference import values
from oracle.zoo import cases, first_case

import unibody
from unibody.generated.registry import MODELS


@pytest.mark.parametrize("case", cases(), ids=str)
def test_auto_class(checkpoint, case):
    written = checkpoint(case)
    model = getattr(unibody, case.auto_class).from_pretrained(written.folder)
    assert type(model).__name__ == case.class_name
    assert isinstance(model, case.model_class)
    ids = token_ids()
    with torch.no_grad():
        ours, direct = values(model(ids)), values(written.load()(ids))
    assert all(torch.equal(ours[name], direct[name]) for name in direct)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_auto_class_from_a_configuration(case):
    config = case.config_class.from_dict(case.config)
    assert isinstance(getattr(unibody, case.auto_class).from_config(config), case.model_class)


def test_how_a_model_of_a_configuration_is_made():
    """`dtype` and `attn_implementation` as in transformers; the configuration that was given stays as it is."""
    case = first_case()
    config = case.config_class.from_dict(case.config)
    model = unibody.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    assert (model.dtype, model.config.attn_implementation, config.attn_implementation) == (
        torch.bfloat16,
        "eager",
        "sdpa",
    )
    with pytest.raises(ValueError, match="attn_implementation 'flash' is not one of"):
        unibody.AutoModelForCausalLM.from_config(config, attn_implementation="flash")


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_auto_config(checkpoint, case):
    config = unibody.AutoConfig.from_pretrained(checkpoint(case).folder)
    assert isinstance(config, case.config_class)
    assert config == checkpoint(case).load().config


def test_options_reach_the_class(checkpoint):
    model, info = unibody.AutoModelForCausalLM.from_pretrained(
        checkpoint(first_case()).folder, dtype=torch.bfloat16, attn_implementation="eager", output_loading_info=True
    )
    assert model.dtype == torch.bfloat16
    assert model.config.attn_implementation == "eager"
    assert set(info) == {"missing_keys", "unexpected_keys", "mismatched_keys"}


@pytest.mark.parametrize("model_type", MODELS)
def test_classes_are_importable_from_the_library(model_type):
    entry = MODELS[model_type]
    for name in (entry["config"], *entry["classes"].values()):
        found = getattr(unibody, name)
        assert found.__name__ == name
        assert name in dir(unibody)


def test_a_model_without_that_head(checkpoint, monkeypatch):
    """The error names the auto classes that the model type has."""
    classes = {"AutoModel": "LlamaModel", "AutoModelForCausalLM": "LlamaForCausalLM"}
    monkeypatch.setitem(MODELS, "llama", {**MODELS["llama"], "classes": classes})
    folder = checkpoint(first_case()).folder
    with pytest.raises(ValueError, match="which has no") as caught:
        unibody.AutoModelForTokenClassification.from_pretrained(folder)
    assert str(caught.value) == (
        f"{folder}/config.json says model_type 'llama', which has no AutoModelForTokenClassification: "
        "use one of AutoConfig, AutoModel, AutoModelForCausalLM"
    )


def test_importing_the_library_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, unibody; dir(unibody); print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
