"""Forms of encoders' checkpoints that are on the Hub: old names, other prefixes, parts left out, the decoder stored twice."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle.inputs import token_ids
from oracle.reference import assert_close, oracle_class, rewritten, stored_tensors, values
from oracle.zoo import Case, cases
from safetensors.torch import load_file
from torch import Tensor

MASKED = cases("AutoModelForMaskedLM")
TYPES = list(dict.fromkeys(case.model_type for case in MASKED))
ENCODERS = [case for case in cases() if case.model_type in TYPES]
BASES = [case for case in cases("AutoModel") if case.model_type in TYPES]
TIED = [case for case in MASKED if case.config.get("tie_word_embeddings", True)]

every_encoder = pytest.mark.parametrize("case", ENCODERS, ids=str)
every_base = pytest.mark.parametrize("case", BASES, ids=str)
every_masked = pytest.mark.parametrize("case", MASKED, ids=str)
every_tied = pytest.mark.parametrize("case", TIED, ids=str)


def assert_read_as_by_the_oracle(case: Case, folder: Path, *, whole: bool = True) -> None:
    """Both read the folder without missing keys; unless `whole`, keys without a use are the same; logits are equal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    theirs, expected = oracle_class(case).from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == expected["missing_keys"] == set()
    assert info["unexpected_keys"] == expected["unexpected_keys"]
    assert bool(caught) == bool(info["unexpected_keys"]) == (not whole)
    assert all(name in str(caught[0].message) for name in info["unexpected_keys"])
    with torch.no_grad():
        our_values, their_values = values(ours(token_ids())), values(theirs.eval()(token_ids()))
    for name, tensor in their_values.items():
        assert_close(our_values[name], tensor, 2e-4)


def gamma_and_beta(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in old if name.endswith(ending)), "")
        renamed[name.removesuffix(ending) + old.get(ending, "")] = tensor
    assert len(renamed.keys() - tensors.keys()) > 6
    return renamed


@every_encoder
def test_gamma_and_beta(checkpoint, tmp_path, case):
    """The first checkpoints name the weights of LayerNorm as the paper does; what we save has today's names."""
    written = checkpoint(case)
    folder = rewritten(written, tmp_path / "old", gamma_and_beta)
    assert_read_as_by_the_oracle(case, folder)
    model = case.model_class.from_pretrained(folder)
    assert set(stored_tensors(model, tmp_path / "new")) == set(load_file(written.folder / "model.safetensors"))


@every_encoder
def test_keys_with_and_without_the_prefix(checkpoint, tmp_path, case):
    """A head reads a base model's keys without their prefix; a base model reads them with it."""
    prefix = f"{case.model_type}."

    def other(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if case in BASES:
            return {prefix + name: tensor for name, tensor in tensors.items()}
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    folder = rewritten(checkpoint(case), tmp_path, other)
    assert set(load_file(folder / "model.safetensors")) != set(
        load_file(checkpoint(case).folder / "model.safetensors")
    )
    assert_read_as_by_the_oracle(case, folder)


@every_encoder
def test_stored_positions_are_ignored(checkpoint, tmp_path, case):
    """Old checkpoints store the numbers 0, 1, 2, …"""
    prefix = "" if case in BASES else f"{case.model_type}."
    numbers = {f"{prefix}embeddings.position_ids": torch.arange(case.config["max_position_embeddings"])[None]}
    assert_read_as_by_the_oracle(case, rewritten(checkpoint(case), tmp_path, lambda tensors: {**tensors, **numbers}))


@every_masked
def test_weights_of_pretraining_that_no_head_needs(checkpoint, tmp_path, case):
    """A pooler and the head of next-sentence prediction are named in the warning."""
    surplus = {
        f"{case.model_type}.pooler.dense.weight": torch.ones(32, 32),
        "cls.seq_relationship.bias": torch.ones(2),
    }
    folder = rewritten(checkpoint(case), tmp_path, lambda tensors: {**tensors, **surplus})
    assert_read_as_by_the_oracle(case, folder, whole=False)


@every_base
def test_a_base_model_without_its_pooler(checkpoint, tmp_path, case):
    """The pooler is named in a warning and drawn at random; the hidden states are the checkpoint's."""
    written = checkpoint(case)
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}
    folder = rewritten(written, tmp_path, lambda t: {name: t[name] for name in t if name not in pooler})
    with pytest.warns(UserWarning, match="pooler.dense.bias, pooler.dense.weight"):
        model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert info == {"missing_keys": pooler, "unexpected_keys": set(), "mismatched_keys": set()}
    assert model.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.2)
    with torch.no_grad():
        expected = written.reference()(token_ids())
        assert_close(model(token_ids()).last_hidden_state, expected.last_hidden_state, written.tolerance)


@every_masked
def test_a_base_model_from_a_masked_language_model(checkpoint, case):
    written, base = checkpoint(case), next(base for base in BASES if base.model_type == case.model_type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = written.load_as(base, output_loading_info=True)
    expected = oracle_class(base).from_pretrained(written.folder, output_loading_info=True)[1]
    assert {name: info[name] for name in info} == {name: set(expected[name]) for name in info}
    with torch.no_grad():
        theirs = written.reference().base_model(token_ids()).last_hidden_state
        assert_close(model(token_ids()).last_hidden_state, theirs, written.tolerance)


def tied_names(case: Case) -> dict[str, str]:
    """`weight` and `bias` of the decoder and of what they are tied to, as (name, source) by kind."""
    return {name.rpartition(".")[2]: (name, source) for name, source in case.model_class._tied_weights_keys.items()}


FORMS: dict[str, Callable[[dict[str, Tensor], tuple[str, str], tuple[str, str]], dict[str, Tensor]]] = {
    "both names": lambda t, weight, bias: {**t, weight[0]: t[weight[1]], bias[0]: t[bias[1]]},
    "the other name of the bias": lambda t, weight, bias: {**without(t, bias[1]), bias[0]: t[bias[1]]},
    "the other names": lambda t, weight, bias: {
        **without(t, weight[1], bias[1]),
        weight[0]: t[weight[1]],
        bias[0]: t[bias[1]],
    },
    "another matrix": lambda t, weight, bias: {**t, weight[0]: t[weight[1]] + 1},
    "another matrix, both biases": lambda t, weight, bias: {**t, weight[0]: t[weight[1]] + 1, bias[0]: t[bias[1]]},
    "another matrix, the other bias": lambda t, weight, bias: {
        **without(t, bias[1]),
        weight[0]: t[weight[1]] + 1,
        bias[0]: t[bias[1]],
    },
    "another bias": lambda t, weight, bias: {**t, bias[0]: t[bias[1]] + 1},
}


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("form", FORMS)
@every_tied
def test_forms_of_the_tied_decoder(checkpoint, tmp_path, case, form):
    """Whatever is stored of the decoder, logits are the oracle's, also after we save the model and either reads it."""
    names = tied_names(case)
    folder = rewritten(checkpoint(case), tmp_path / "read", lambda t: FORMS[form](t, names["weight"], names["bias"]))
    assert_read_as_by_the_oracle(case, folder)
    model = case.model_class.from_pretrained(folder)
    assert model.config.tie_word_embeddings == ("another" not in form)
    model.save_pretrained(tmp_path / "saved")
    assert_read_as_by_the_oracle(case, tmp_path / "saved")
    with torch.no_grad():
        again = case.model_class.from_pretrained(tmp_path / "saved")
        assert torch.equal(again(token_ids()).logits, model(token_ids()).logits)


@every_tied
def test_tied_weights_are_stored_once(checkpoint, tmp_path, case):
    model = checkpoint(case).load()
    for name, source in case.model_class._tied_weights_keys.items():
        assert model.get_parameter(name) is model.get_parameter(source)
    stored = stored_tensors(model, tmp_path)
    assert not set(case.model_class._tied_weights_keys) & set(stored)
    assert model.get_input_embeddings().weight is model.get_parameter(tied_names(case)["weight"][0])
