"""The auto classes find the generated class by the `model_type` of a checkpoint."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import pytest
import torch
import transformers
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


@pytest.mark.parametrize("name", ["AutoModelForSequenceClassification", "BertForSequenceClassification"])
def test_other_settings_than_the_checkpoints(name, tmp_path):
    """As in transformers: fields, or a configuration, go before config.json; a head of another size is new."""
    sizes = {
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    base = unibody.BertModel(unibody.BertConfig(**sizes))
    base.save_pretrained(tmp_path)
    load = getattr(unibody, name).from_pretrained
    ours = []
    for options in ({"num_labels": 5}, {"id2label": {0: "a", 1: "b", 2: "c"}, "num_hidden_layers": 1}):
        theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours.append(load(tmp_path, **options))
        assert type(ours[-1]) is unibody.BertForSequenceClassification
        assert ours[-1].config.num_labels == theirs.config.num_labels == ours[-1].classifier.out_features
        assert set(ours[-1].config.id2label.values()) == set(theirs.config.id2label.values())
        assert {key: value.shape for key, value in ours[-1].state_dict().items()} == {
            key: value.shape for key, value in theirs.state_dict().items()
        }
        same = "bert.encoder.layer.0.output.dense.weight"
        assert torch.equal(ours[-1].state_dict()[same], theirs.state_dict()[same])
    ours[0].save_pretrained(tmp_path / "tuned")
    again = load(tmp_path / "tuned", config=ours[0].config, attn_implementation="eager")
    assert torch.equal(again.classifier.weight, ours[0].classifier.weight)
    assert (again.config, again.config.attn_implementation) == (ours[0].config, "eager")
    assert unibody.AutoConfig.from_pretrained(tmp_path, num_labels=7).num_labels == 7
    pickle.loads(pickle.dumps(again))


def test_options_that_there_are_not(checkpoint):
    """The nearest is named; a configuration is that of the model."""
    folder = checkpoint(first_case()).folder
    for call in (unibody.AutoModelForCausalLM, unibody.LlamaForCausalLM):
        with pytest.raises(
            TypeError, match=r"^LlamaForCausalLM.from_pretrained has no option 'revison': did you mean revision\?$"
        ):
            call.from_pretrained(folder, revison="main")
    with pytest.raises(
        TypeError, match=r"^LlamaConfig.from_pretrained has no option 'num_label': did you mean num_labels\?$"
    ):
        unibody.AutoConfig.from_pretrained(folder, num_label=3)
    with pytest.raises(ValueError, match=r"^config is one of 'bert', and LlamaForCausalLM takes one of 'llama'$"):
        unibody.LlamaForCausalLM.from_pretrained(folder, config=unibody.BertConfig())


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


def test_only_the_main_process_writes(checkpoint, tmp_path):
    """Scripts of accelerate's users save in every process."""
    model = unibody.AutoModelForCausalLM.from_pretrained(checkpoint(first_case()).folder)
    model.save_pretrained(tmp_path, is_main_process=False, save_function=torch.save)
    assert list(tmp_path.iterdir()) == []
    model.save_pretrained(tmp_path, is_main_process=True, save_function=torch.save)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}


def test_an_adapter_without_a_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match=r"adapter_config\.json names no base model: load that"):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
