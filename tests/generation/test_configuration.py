"""generation_config.json: read as the oracle reads it, written so that the oracle reads it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hub.conftest import Client, client, hub, plain  # noqa: F401  the fixtures of a Hub
from hub.loopback import Hub
from oracle.inputs import token_ids
from oracle.reference import save
from oracle.zoo import first_case

import unibody
from unibody.generation.configuration import DEFAULTS, LEFT_OUT, field_names
from unibody.generation.values import CHECKS

VALUES: dict[str, Any] = {
    "max_new_tokens": 12, "min_new_tokens": 2, "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05,
    "typical_p": 0.95, "epsilon_cutoff": 3e-4, "eta_cutoff": 1e-3, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3,
    "bad_words_ids": [[5], [6, 7]], "sequence_bias": [[[3], 1.0], [[5, 6], -2.0]], "suppress_tokens": [8],
    "begin_suppress_tokens": [9], "forced_eos_token_id": [2, 3], "exponential_decay_length_penalty": [3, 1.1],
    "num_beams": 2, "length_penalty": 0.5, "early_stopping": "never", "num_return_sequences": 2, "stop_strings": ["x"],
    "eos_token_id": [2, 3], "bos_token_id": 1, "pad_token_id": 0, "renormalize_logits": True, "max_time": 60.0,
    "cache_implementation": "static", "use_cache": True, "num_assistant_tokens": 5,
}  # fmt: skip


def test_the_oracle_reads_what_we_write(tmp_path: Path) -> None:
    unibody.GenerationConfig(**VALUES).save_pretrained(tmp_path)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path).to_dict()
    assert {name: theirs[name] for name in VALUES} == VALUES


def test_we_read_what_the_oracle_writes(tmp_path: Path) -> None:
    transformers.GenerationConfig(**VALUES).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    ours = unibody.GenerationConfig.from_pretrained(tmp_path)
    assert ours.to_diff_dict() == written
    ours.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/generation_config.json").read_text()) == written


def test_biases_by_tuple(tmp_path: Path) -> None:
    """The oracle turns its tuples to text, which it cannot use any more; we can."""
    biases = {(3,): 1.0, (5, 6): -2.0}
    transformers.GenerationConfig(sequence_bias=biases).save_pretrained(tmp_path)
    ours = unibody.GenerationConfig.from_pretrained(tmp_path)
    assert ours.sequence_bias == [[[3], 1.0], [[5, 6], -2.0]]
    assert unibody.GenerationConfig(sequence_bias=biases).sequence_bias == ours.sequence_bias


def test_names_and_defaults_are_the_oracles() -> None:
    theirs = transformers.GenerationConfig().to_dict()
    additions = {"presence_penalty", "frequency_penalty"}
    assert field_names() - theirs.keys() == additions
    assert LEFT_OUT.keys() <= theirs.keys()
    defaults = transformers.GenerationConfig._get_default_generation_params()
    shared = DEFAULTS.keys() & defaults.keys()
    assert {name: DEFAULTS[name] for name in shared} == {name: defaults[name] for name in shared}
    ours = field_names()
    assert {name for name in defaults.keys() & ours if defaults[name] is not None} - shared == {"max_length"}
    assert set(CHECKS) == ours


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    values = {
        "top_k": 3,
        "do_sample": True,
        "guidance_scale": 1.0,
        "of_another_library": {"a": [1]},
        "transformers_version": "5",
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    config = unibody.GenerationConfig.from_pretrained(tmp_path, top_k=4)
    assert (config.top_k, config.of_another_library) == (4, {"a": [1]})  # type: ignore[attr-defined]
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == values | {"top_k": 4}
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
    with pytest.raises(ValueError, match=r"^GenerationConfig has no field 'top_kk': did you mean top_k\?$"):
        unibody.GenerationConfig.from_dict({}, top_kk=3)


def test_from_model_config() -> None:
    """Special tokens, and what old config.json files say of generation."""
    values = {"eos_token_id": [2, 3], "pad_token_id": None, "max_length": 77, "temperature": 0.3}
    ours = unibody.GenerationConfig.from_model_config(unibody.LlamaConfig.from_dict(values))
    old = transformers.LlamaConfig()
    vars(old).update(values)
    theirs = transformers.GenerationConfig.from_model_config(old)
    names = field_names() - {"presence_penalty", "frequency_penalty"}
    assert {n: getattr(ours, n) for n in names} == {n: getattr(theirs, n) for n in names}


def test_update() -> None:
    config = unibody.GenerationConfig(top_k=3)
    assert config.update(top_k=4, colour="red") == {"colour": "red"}
    assert config.update(defaults_only=True, top_k=5, top_p=0.5) == {"top_k": 5}
    assert config.update(allow_custom_entries=True, colour="red") == {}
    assert (config.top_k, config.top_p, config.colour) == (4, 0.5, "red")  # type: ignore[attr-defined]
    before = copy.deepcopy(config)
    with pytest.raises(ValueError, match=r"^top_p=7: expected within 0 and 1$"):
        config.update(min_p=0.5, top_p=7)
    assert config == before
    assert repr(config) == "GenerationConfig(top_k=4, top_p=0.5, colour='red')"
    assert config.update(validate=3) == {"validate": 3}


def test_models_keep_theirs(tmp_path: Path) -> None:
    """Read with the weights and written with them, by both libraries; without a file the model's configuration counts."""
    written = save(first_case(), "small", tmp_path / "theirs")
    reference = written.reference()
    reference.generation_config.update(do_sample=True, top_k=7, eos_token_id=[2, 70], max_new_tokens=6)
    reference.save_pretrained(tmp_path / "theirs")
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert (model.generation_config.top_k, model.generation_config.eos_token_id) == (7, [2, 70])
    ids = token_ids(2, 5)
    torch.manual_seed(0)
    expected = reference.generate(ids)
    torch.manual_seed(0)
    assert torch.equal(model.generate(ids), expected)

    model.generation_config.update(top_k=9)
    model.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").generation_config
    assert (theirs.top_k, theirs.eos_token_id, theirs.do_sample) == (9, [2, 70], True)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert again.generation_config == model.generation_config
    for other in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        assert other.generation_config == model.generation_config

    (tmp_path / "ours/generation_config.json").unlink()
    bare = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert bare.generation_config == unibody.GenerationConfig.from_model_config(bare.config)
    given = unibody.GenerationConfig(max_new_tokens=3)
    assert (
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", generation_config=given).generation_config
        is given
    )


def test_who_generates() -> None:
    assert hasattr(unibody.LlamaForCausalLM, "generation_config")
    assert issubclass(unibody.Gemma2ForCausalLM, unibody.GenerationMixin)
    for other in (
        unibody.LlamaModel,
        unibody.LlamaForSequenceClassification,
        unibody.BertForMaskedLM,
        unibody.BertModel,
    ):
        assert not hasattr(other, "generate")
        assert not hasattr(other, "generation_config")


def test_adopted() -> None:
    """A model of the file gets the configuration of its own."""
    config = unibody.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=[5, 6],
    )
    model = unibody.adopt(unibody.LlamaForCausalLM.__bases__[1](config))
    assert model.generation_config.eos_token_id == [5, 6]
    assert model.generate(torch.tensor([[1, 2]]), num_beams=2, max_new_tokens=2).shape[0] == 1


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    save(first_case(), "small", tmp_path)
    file = tmp_path / "generation_config.json"
    for text, message in (
        ('{"top_p": 3}', "top_p=3: expected within 0 and 1; correct it, or load the model with generation_config=…"),
        ("{", "is not valid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match="generation_config") as caught:
            unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert str(caught.value).startswith(str(file))
        assert message in str(caught.value)
    given = unibody.GenerationConfig()
    assert unibody.AutoModelForCausalLM.from_pretrained(tmp_path, generation_config=given).generation_config is given
    file.unlink()
    with pytest.raises(unibody.HubError, match=r"has no file generation_config\.json$"):
        unibody.GenerationConfig.from_pretrained(tmp_path)


def test_nothing_is_saved_with_a_wrong_value(tmp_path: Path) -> None:
    written = save(first_case(), "small", tmp_path / "model")
    model = unibody.AutoModelForCausalLM.from_pretrained(written.folder)
    model.generation_config.top_p = 3
    with pytest.raises(ValueError, match="top_p=3"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_hub(hub: Hub, client: Client) -> None:  # noqa: F811
    """Pushed alone, and with a model; read from there; the card's snippet runs."""
    found = client("""
config = unibody.GenerationConfig(top_k=7, do_sample=True)
config.push_to_hub("alice/options")
answers["alone"] = unibody.GenerationConfig.from_pretrained("alice/options") == config
card = Path(unibody.cached_file("alice/options", "README.md")).read_text()
space = {}
exec(card.partition("```python\\n")[2].partition("```")[0], space)
answers["snippet"] = space["config"] == config
model = unibody.LlamaForCausalLM.from_pretrained(folder)
model.generation_config = config
model.push_to_hub("alice/tiny")
answers["model"] = unibody.AutoModelForCausalLM.from_pretrained("alice/tiny").generation_config == config
""")
    assert found == {"alone": True, "snippet": True, "model": True}
