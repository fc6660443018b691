"""config.json: historical and newer keys are read, the newer ones are written, and what is unknown is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from oracle.inputs import token_ids
from oracle.reference import assert_close, save
from oracle.zoo import ZOO, cases, first_case

import unibody
from unibody.generated.registry import MODELS

every_case = pytest.mark.parametrize("case", cases(), ids=str)
every_model_type = pytest.mark.parametrize("model_type", list(ZOO))
every_rotary_model_type = pytest.mark.parametrize(
    "model_type", [model_type for model_type, entry in ZOO.items() if "rope_parameters" in entry["config_keys"]]
)
every_causal_model_type = pytest.mark.parametrize(
    "model_type", [model_type for model_type, entry in MODELS.items() if "AutoModelForCausalLM" in entry["classes"]]
)


def config_class(model_type: str):
    return next(case.config_class for case in cases() if case.model_type == model_type)


def written(config, folder) -> dict:
    """The JSON that `save_pretrained` writes."""
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@every_case
def test_config_json_of_the_oracle_is_written_back_unchanged(checkpoint, tmp_path, case):
    theirs = json.loads((checkpoint(case).folder / "config.json").read_text(encoding="utf-8"))
    assert set(theirs) == set(case.config_keys)
    assert written(case.config_class.from_pretrained(checkpoint(case).folder), tmp_path) == theirs


@every_case
def test_transformers_reads_what_we_write(tmp_path, case):
    ours = case.config_class.from_dict(case.config)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    assert theirs["model_type"] == case.model_type
    for key, value in case.config.items():
        if key != "num_labels":
            assert theirs[key] == value, key
    assert len(theirs["id2label"]) == case.config.get("num_labels", 2)


@every_model_type
def test_defaults_are_the_oracles(model_type):
    """A key that config.json leaves out means what it means to transformers."""
    theirs = transformers.AutoConfig.for_model(model_type).to_dict()
    ours = config_class(model_type)().to_dict()
    wanted = set(ZOO[model_type]["config_keys"]) - {"architectures", "dtype", "transformers_version"}
    assert {key: ours.get(key) for key in wanted} == {key: theirs[key] for key in wanted}


ROPE_FORMS = {
    "plain base": {"rope_theta": 500.0},
    "no scaling": {"rope_theta": 500.0, "rope_scaling": None},
    "historical type": {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_type": {"rope_theta": 500.0, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn without original length": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "llama3": {
        "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "newer": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    "newer with base outside": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 500.0},
    "yarn with everything": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8,
            "attention_factor": 0.7,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        }
    },
}


@pytest.mark.parametrize("form", ROPE_FORMS)
@every_rotary_model_type
def test_rope_keys(tmp_path, model_type, form):
    """However the rotary embedding is spelled, transformers reads the same from our file and gives the same logits."""
    case = next(case for case in cases("AutoModelForCausalLM") if case.model_type == model_type)
    checkpoint = save(case, "unit", tmp_path / "checkpoint")
    raw = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))
    del raw["rope_parameters"]
    (checkpoint.folder / "config.json").write_text(json.dumps({**raw, **ROPE_FORMS[form]}), encoding="utf-8")

    model = checkpoint.load()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder).eval()
    ids = token_ids()
    with torch.no_grad():
        assert_close(model(ids).logits, theirs(ids).logits, checkpoint.tolerance)

    saved = written(model.config, tmp_path / "written")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "written").rope_parameters
    assert read == {key: value for key, value in theirs.config.rope_parameters.items() if key != "type"}
    assert not {"rope_theta", "rope_scaling"} & set(saved)
    again = case.config_class.from_pretrained(tmp_path / "written")
    assert again == model.config


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float32"}, "float32"),
    ],
    ids=str,
)
def test_type_keys(tmp_path, keys, expected):
    case = first_case()
    saved = written(case.config_class.from_dict({**case.config, **keys}), tmp_path)
    assert saved["dtype"] == expected
    assert "torch_dtype" not in saved


@pytest.mark.parametrize(
    "keys, names",
    [
        ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": {"0": "no", "1": "yes", "2": "who knows"}}, ["no", "yes", "who knows"]),
        ({"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}, ["no", "yes"]),
        ({"id2label": {"10": "k", **{str(n): str(n) for n in range(10)}}}, [*map(str, range(10)), "k"]),
    ],
    ids=["number", "names", "both", "order"],
)
def test_labels(tmp_path, keys, names):
    """`id2label` has integer keys in memory, its length is `num_labels`, and transformers reads the same labels."""
    case = first_case("AutoModelForSequenceClassification")
    fields = {key: value for key, value in case.config.items() if key != "num_labels"}
    config = case.config_class.from_dict({**fields, **keys})
    assert config.num_labels == len(names)
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: number for number, name in enumerate(names)}
    config.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (theirs.num_labels, theirs.id2label, theirs.label2id) == (len(names), config.id2label, config.label2id)
    assert case.config_class.from_pretrained(tmp_path) == config
    assert case.model_class(config).score.weight.shape == (len(names), case.config["hidden_size"])


@every_model_type
def test_two_labels_where_nothing_is_said(model_type):
    assert config_class(model_type)().num_labels == transformers.AutoConfig.for_model(model_type).num_labels == 2


@every_model_type
def test_unknown_keys_are_kept_and_written_back(tmp_path, model_type):
    unknown = {"auto_map": {"AutoModel": "x.Y"}, "made_up": [1, None, {"a": "ö"}], "_name_or_path": "somewhere"}
    config = config_class(model_type).from_dict({"model_type": model_type, **unknown})
    assert config.made_up == unknown["made_up"]
    saved = written(config, tmp_path)
    assert {key: saved.get(key) for key in unknown} == unknown
    again = config_class(model_type).from_pretrained(tmp_path)
    assert again.made_up == unknown["made_up"]
    assert again == config


@every_rotary_model_type
def test_dictionary_round_trip_shares_nothing(model_type):
    """`to_dict` gives plain data that can be changed without changing the configuration."""
    config = config_class(model_type).from_dict({"made_up": {"a": [1]}})
    first = config.to_dict()
    json.dumps(first)
    first["rope_parameters"]["rope_type"] = "changed"
    first["made_up"]["a"].append(2)
    assert config.to_dict()["rope_parameters"]["rope_type"] != "changed"
    assert config.made_up == {"a": [1]}
    given = {"made_up": {"a": [1]}, "rope_parameters": {"rope_type": "default", "rope_theta": 1.0}}
    read = config_class(model_type).from_dict(given)
    read.rope_parameters["rope_theta"] = 2.0
    read.made_up["a"].append(2)
    assert given == {"made_up": {"a": [1]}, "rope_parameters": {"rope_type": "default", "rope_theta": 1.0}}


@every_model_type
def test_equality_is_by_fields(model_type):
    made, other = config_class(model_type), config_class(model_type)()
    assert made() == other
    assert made(vocab_size=7) != other
    assert made.from_dict({"made_up": 1}) != other
    assert made() != "a string"


def test_configurations_of_different_models_differ():
    classes = [config_class(model_type) for model_type in MODELS]
    assert len(classes) > 1
    for one in classes:
        assert [other for other in classes if one() == other()] == [one]


@every_model_type
def test_attention_implementation_is_not_stored(tmp_path, model_type):
    config = config_class(model_type)()
    assert config.attn_implementation == "sdpa"
    config.attn_implementation = "eager"
    saved = written(config, tmp_path)
    assert not [key for key in saved if "attn_implementation" in key]
    assert config_class(model_type).from_pretrained(tmp_path).attn_implementation == "sdpa"


@every_causal_model_type
def test_one_attention_window_per_layer(model_type):
    values = {**ZOO[model_type]["config"], "num_hidden_layers": 5}
    oracle = transformers.AutoConfig.for_model(model_type, **values)
    window = getattr(oracle, "sliding_window", None)
    kinds = getattr(oracle, "layer_types", None) or ["sliding_attention"] * 5
    expected = [window if kind == "sliding_attention" else None for kind in kinds]
    assert config_class(model_type).from_dict(values).attention_windows == expected


def test_library_names(tmp_path):
    """What users of the ecosystem call on a configuration, beside transformers'."""
    for library in (unibody, transformers):
        config: Any = library.AutoConfig.for_model("llama", hidden_size=64, num_labels=3, rope_theta=500.0)  # type: ignore[attr-defined]
        assert type(config).__name__ == "LlamaConfig"
        assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        assert config.rope_parameters["rope_theta"] == 500.0
        config.num_labels = 3
        config.id2label[0] = "kept"
        config.num_labels = 3
        assert config.id2label[0] == "kept"
        config.num_labels = 2
        assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}
        config.update({"hidden_size": 96, "head_dim": 3})
        assert config.get_text_config() is config
        config.to_json_file(tmp_path / "any.json")
        assert json.loads(config.to_json_string())["hidden_size"] == 96
        for reader in (unibody, transformers):
            again = reader.LlamaConfig.from_json_file(tmp_path / "any.json")
            assert (again.hidden_size, again.rope_parameters["rope_theta"]) == (96, 500.0)
    with pytest.raises(ValueError, match="for_model says model_type 'lama'"):
        unibody.AutoConfig.for_model("lama")
    with pytest.raises(TypeError, match="hiden_size"):
        unibody.LlamaConfig(hiden_size=3)  # type: ignore[call-arg]


def test_a_loaded_model_has_a_configuration_of_the_library(checkpoint):
    model = unibody.AutoModelForCausalLM.from_pretrained(checkpoint(first_case()).folder)
    assert type(model.config) is unibody.LlamaConfig
    assert model.model.config is model.config


@pytest.mark.parametrize(
    ("shorthand", "parameters"),
    [
        ({"rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 500.0}),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        ({"rope_scaling": None, "rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 500.0}),
    ],
)  # fmt: skip
def test_other_rotary_positions_than_the_file_says(checkpoint, shorthand, parameters):
    """The former keys go before rope_parameters of config.json, as those themselves do; all that they do not name stays."""
    folder, ids = checkpoint(first_case()).folder, token_ids(1, 9)
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, **shorthand)
    assert model.config.rope_parameters == parameters
    assert unibody.AutoConfig.from_pretrained(folder, **shorthand).rope_parameters == parameters
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder, rope_parameters=parameters)
    assert_close(model(ids).logits, expected(ids).logits, 2e-4)
