"""A generated model loads the oracle's checkpoint and gives the oracle's values."""

from __future__ import annotations

import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import SCALES, assert_close, save, values
from oracle.zoo import ZOO, Case, cases

from unibody.generated.registry import MODELS

ATTENTIONS = ("sdpa", "eager")

every_case = pytest.mark.parametrize("case", cases(), ids=str)
every_scale = pytest.mark.parametrize("scale", SCALES)
every_attention = pytest.mark.parametrize("attention", ATTENTIONS)


def test_zoo_and_registry_name_the_same_classes():
    listed = {model_type: sorted(entry["classes"].values()) for model_type, entry in MODELS.items()}
    assert listed == {model_type: sorted(entry["classes"]) for model_type, entry in ZOO.items()}


@every_case
def test_checkpoint_is_loaded_whole(checkpoint, case):
    model, info = checkpoint(case).load(output_loading_info=True)
    assert info == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    assert not model.training
    stored = checkpoint(case).original.state_dict()
    loaded = model.state_dict()
    assert set(loaded) == set(stored)
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor), name


@every_attention
@every_scale
@every_case
def test_values_are_the_oracles(checkpoint, case, scale, attention):
    written = checkpoint(case, scale)
    model = written.load(attn_implementation=attention)
    assert model.config.attn_implementation == attention
    ids = token_ids()
    with torch.no_grad():
        ours, theirs = values(model(ids)), values(written.reference(attention)(ids))
    assert set(ours) == set(theirs)
    for name in ours:
        assert_close(ours[name], theirs[name], written.tolerance)


@pytest.mark.parametrize("positions", ["given", "implied"])
@pytest.mark.parametrize("side", ["left", "right"])
@every_attention
@every_case
def test_values_with_padding(checkpoint, case, side, attention, positions):
    """Values of real tokens are the oracle's; those of padding are whatever they are, but never NaN."""
    for scale in SCALES:
        written = checkpoint(case, scale)
        batch = padded_batch(side=side)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if positions == "given":
            inputs["position_ids"] = batch.position_ids
        with torch.no_grad():
            ours = values(written.load(attn_implementation=attention)(**inputs))
            theirs = values(written.reference(attention)(**inputs))
        for name, tensor in ours.items():
            assert not tensor.isnan().any(), name
            real = batch.attention_mask.bool() if tensor.shape[:2] == batch.attention_mask.shape else slice(None)
            assert_close(tensor[real], theirs[name][real], written.tolerance)


@every_attention
@pytest.mark.parametrize("case", [case for case in cases() if "sliding_window" in case.config], ids=str)
def test_window_reaches_as_far_as_the_oracles(checkpoint, case, attention):
    """Twice the window: equal to the oracle, and different from a model without a window exactly past the window."""
    written = checkpoint(case)
    window = case.config["sliding_window"]
    model = written.load(attn_implementation=attention)
    assert window in model.config.attention_windows
    ids = token_ids(length=2 * window + 3)
    endless = case.config_class.from_dict({**model.config.to_dict(), "sliding_window": None})
    assert set(endless.attention_windows) == {None}
    unlimited = case.model_class(endless).eval()
    unlimited.load_state_dict(model.state_dict())
    with torch.no_grad():
        ours, theirs, wide = (values(each(ids)) for each in (model, written.reference(attention), unlimited))
    for name in ours:
        assert_close(ours[name], theirs[name], written.tolerance)
        difference = (ours[name] - wide[name]).abs()
        if difference.shape[:2] == ids.shape:
            assert difference[:, :window].max() < written.tolerance
            assert difference.reshape(*ids.shape, -1).amax(-1)[:, window:].min() > 10 * written.tolerance
        else:
            assert difference.max() > 100 * written.tolerance


@every_case
def test_bfloat16_is_the_oracles_bfloat16(checkpoint, case):
    """All parameters have the type asked for; values differ from the oracle's by less than rounding moves those."""
    written = checkpoint(case)
    model = written.load(dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    ids = token_ids()
    with torch.no_grad():
        exact = values(written.reference()(ids))
        ours, theirs = values(model(ids)), values(written.reference(dtype=torch.bfloat16)(ids))
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype == torch.bfloat16
        rounding = (theirs[name].float() - exact[name]).abs().mean()
        assert (ours[name].float() - theirs[name].float()).abs().mean() <= 0.1 * rounding


@every_case
def test_converting_a_model_is_loading_it_converted(checkpoint, case):
    """`model.to(bfloat16)` leaves the rotary frequencies in float32, as loading in bfloat16 does."""
    converted, loaded = checkpoint(case).load().to(torch.bfloat16), checkpoint(case).load(dtype=torch.bfloat16)
    ids = token_ids()
    with torch.no_grad():
        ours, expected = values(converted(ids)), values(loaded(ids))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize("asked, expected", [(None, torch.bfloat16), (torch.float32, torch.float32)], ids=str)
@pytest.mark.parametrize("case", cases("AutoModelForCausalLM")[:1], ids=str)
def test_type_of_a_checkpoint_stored_in_bfloat16(tmp_path, case, asked, expected):
    """Without `dtype` the checkpoint's own type is kept; float32 reproduces the stored values exactly."""
    reference = save(case, "unit", tmp_path).original.to(torch.bfloat16)
    reference.save_pretrained(tmp_path)
    model = case.model_class.from_pretrained(tmp_path, dtype=asked)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(expected)), name


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_embeddings_given_instead_of_ids(checkpoint, case):
    written = checkpoint(case)
    model = written.load()
    ids = token_ids()
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(ids)
        assert torch.equal(model(inputs_embeds=embeddings).logits, model(ids).logits)


@pytest.mark.parametrize("kept", [1, 3])
@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_logits_of_the_last_positions_only(checkpoint, case, kept):
    written = checkpoint(case)
    ids = token_ids()
    with torch.no_grad():
        ours = written.load()(ids, logits_to_keep=kept).logits
        theirs = written.reference()(ids, logits_to_keep=kept).logits
    assert ours.shape == (2, kept, case.config["vocab_size"])
    assert_close(ours, theirs, written.tolerance)


def test_case_names_are_unique():
    names = [str(case) for case in cases()]
    assert len(names) == len(set(names))


def test_every_case_has_its_auto_class():
    assert [case for case in cases() if case.auto_class is None] == []


@every_case
def test_config_reads_what_the_oracle_read(checkpoint, case: Case):
    """The oracle's config.json gives the values that the oracle was configured with."""
    written = checkpoint(case)
    config = case.config_class.from_pretrained(written.folder)
    for key, value in case.config.items():
        read = getattr(config, key)
        assert {**value, **read} == read if isinstance(value, dict) else read == value, key
