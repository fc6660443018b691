"""Forms of checkpoints that are on the Hub: base-model keys, other heads, tied weights stored in any way, old buffers."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracle.inputs import token_ids
from oracle.reference import assert_close, oracle_class, rewritten
from oracle.zoo import Case, cases
from safetensors.torch import load_file
from torch import Tensor

HEADS = [case for case in cases() if case.auto_class != "AutoModel" and case.entry == case.model_type]
CAUSAL = cases("AutoModelForCausalLM")
TIED = [case for case in CAUSAL if case.config.get("tie_word_embeddings")]


def base_of(case: Case) -> Case:
    """The case of the model without a head."""
    return next(other for other in cases("AutoModel") if other.entry == case.model_type)


def difference(model, info) -> dict[str, set[str]]:
    return {name: keys for name, keys in info.items() if keys}


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_a_head_on_a_base_checkpoint(checkpoint, case):
    """The base model's values are taken; the head is missing, named in one warning, and gets random values.

    A pooler that the head does not need is named in another.
    """
    base = checkpoint(base_of(case))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, info = case.model_class.from_pretrained(base.folder, output_loading_info=True)
    stored = base.original.state_dict()
    unused = {name for name in stored if f"{model.base_model_prefix}.{name}" not in model.state_dict()}
    assert all(name.startswith("pooler.") for name in unused)
    head = set(model.state_dict()) - {f"{model.base_model_prefix}.{name}" for name in stored}
    head -= set(model._tied_weights_keys) if model.config.tie_word_embeddings else set()
    assert info == {"missing_keys": head, "unexpected_keys": unused, "mismatched_keys": set()}
    assert len(caught) == bool(head) + bool(unused)
    for warning, names in zip(caught, [names for names in (head, unused) if names], strict=True):
        assert str(warning.message).startswith(str(base.folder))
        assert all(name in str(warning.message) for name in names)
        assert warning.filename == __file__
    for name, tensor in stored.items():
        assert name in unused or torch.equal(model.state_dict()[f"{model.base_model_prefix}.{name}"], tensor), name
    for name in head:
        tensor = model.state_dict()[name]
        assert torch.isfinite(tensor).all()
        if tensor.ndim > 1:
            assert tensor.std() > 0, name
        else:
            assert tensor.unique().tolist() == [float(name.lower().endswith("norm.weight"))], name


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_a_base_model_from_a_checkpoint_with_a_head(checkpoint, tmp_path, case):
    written = checkpoint(case)
    base = base_of(case)
    head = {"lm_head.weight"} & set(load_file(written.folder / "model.safetensors"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, info = written.load_as(base, output_loading_info=True)
    assert info == {"missing_keys": set(), "unexpected_keys": head, "mismatched_keys": set()}
    assert [str(warning.message).count("lm_head.weight") for warning in caught] == [1] * len(head)
    ids = token_ids()
    with torch.no_grad():
        theirs = written.reference().base_model(ids).last_hidden_state
        assert_close(model(ids).last_hidden_state, theirs, written.tolerance)


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_keys_without_the_prefix(checkpoint, tmp_path, case):
    """A model with a head reads keys that lack the base model's prefix, as the oracle does."""
    written = checkpoint(case)
    folder = rewritten(written, tmp_path, lambda tensors: {k.removeprefix("model."): v for k, v in tensors.items()})
    assert oracle_class(case).from_pretrained(folder, output_loading_info=True)[1]["missing_keys"] == set()
    model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert difference(model, info) == {}
    for name, tensor in written.original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_buffers_that_every_model_computes_are_ignored(checkpoint, tmp_path, case):
    """Old checkpoints store rotary frequencies; they are neither read nor reported."""
    old = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.full((4,), float(n)) for n in range(2)}
    written = checkpoint(case)
    folder = rewritten(written, tmp_path, lambda tensors: {**tensors, **old})
    model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert difference(model, info) == {}
    ids = token_ids()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, written.load()(ids).logits)


def only_the_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"lm_head.weight" if name == "model.embed_tokens.weight" else name: t for name, t in tensors.items()}


def both(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}


@pytest.mark.parametrize("form", [both, only_the_head], ids=["both, equal", "only the head"])
@pytest.mark.parametrize("case", TIED, ids=str)
def test_a_tied_weight_stored_another_way(checkpoint, tmp_path, case, form):
    """One tensor serves as embedding and head, whichever name it is stored under."""
    written = checkpoint(case)
    model, info = case.model_class.from_pretrained(rewritten(written, tmp_path, form), output_loading_info=True)
    assert difference(model, info) == {}
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.get_input_embeddings().weight
    ids = token_ids()
    with torch.no_grad():
        assert_close(model(ids).logits, written.reference()(ids).logits, written.tolerance)


@pytest.mark.parametrize("case", TIED, ids=str)
def test_a_different_head_is_not_tied(checkpoint, tmp_path, case):
    """config.json says tied, but the file holds two different weights: both are used, here, in the oracle, and saved."""
    written = checkpoint(case)
    folder = rewritten(
        written, tmp_path / "read", lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"] + 1}
    )
    model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert difference(model, info) == {}
    theirs = oracle_class(case).from_pretrained(folder).eval()
    ids = token_ids()
    with torch.no_grad():
        assert_close(model(ids).logits, theirs(ids).logits, written.tolerance)
        assert (model(ids).logits - written.reference()(ids).logits).abs().max() > 1
    model.save_pretrained(tmp_path / "saved")
    for again in (case.model_class, oracle_class(case)):
        with torch.no_grad():
            assert_close(
                again.from_pretrained(tmp_path / "saved").eval()(ids).logits, theirs(ids).logits, written.tolerance
            )


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_what_the_checkpoint_lacks_is_named_and_drawn(checkpoint, tmp_path, case):
    """One warning names every missing tensor; each gets the values of a fresh model, whatever else was loaded."""
    written = checkpoint(case)
    lacking = {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"}
    folder = rewritten(written, tmp_path, lambda t: {k: v for k, v in t.items() if k not in lacking})
    with pytest.warns(UserWarning, match="model.layers.1.mlp.up_proj.weight, model.norm.weight") as caught:
        model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert len(caught) == 1
    assert info == {"missing_keys": lacking, "unexpected_keys": set(), "mismatched_keys": set()}
    state = model.state_dict()
    fresh = case.model_class(model.config).state_dict()["model.norm.weight"]
    assert torch.equal(state["model.norm.weight"], fresh)
    drawn = state["model.layers.1.mlp.up_proj.weight"]
    assert drawn.std().item() == pytest.approx(model.config.initializer_range, rel=0.2)
    for name, tensor in written.original.state_dict().items():
        assert name in lacking or torch.equal(state[name], tensor), name
    with torch.no_grad():
        assert not model(token_ids()).logits.isnan().any()


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_what_the_model_has_no_place_for_is_named(checkpoint, tmp_path, case):
    surplus = {"model.layers.7.mlp.up_proj.weight": torch.ones(2), "made.up": torch.ones(1)}
    folder = rewritten(checkpoint(case), tmp_path, lambda tensors: {**tensors, **surplus})
    with pytest.warns(UserWarning, match="made.up") as caught:
        _, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    (warning,) = caught
    assert all(name in str(warning.message) for name in surplus)
    assert info == {"missing_keys": set(), "unexpected_keys": set(surplus), "mismatched_keys": set()}


@pytest.mark.parametrize("case", CAUSAL[:1], ids=str)
def test_both_forms_of_weights_in_one_folder(checkpoint, tmp_path, case):
    """The single file wins over shards, as in the oracle."""
    checkpoint(case, "small").reference().save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    folder = rewritten(checkpoint(case, "unit"), tmp_path / "both", dict)
    for path in (tmp_path / "shards").glob("model*"):
        (folder / path.name).write_bytes(path.read_bytes())
    theirs = oracle_class(case).from_pretrained(folder).state_dict()
    for name, tensor in case.model_class.from_pretrained(folder).state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
