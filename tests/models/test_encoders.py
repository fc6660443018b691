"""What only encoders have: segments, positions that skip padding, poolers, dropout in every layer."""

from __future__ import annotations

import pytest
import torch
import transformers
from oracle.inputs import padded_batch, token_ids
from oracle.reference import SCALES, Checkpoint, assert_close, save, values
from oracle.zoo import ZOO, cases
from torch import Tensor

ATTENTIONS = ("sdpa", "eager")
MASKED = cases("AutoModelForMaskedLM")
TYPES = list(dict.fromkeys(case.model_type for case in MASKED))
ENCODERS = [case for case in cases() if case.model_type in TYPES]
BASES = [case for case in cases("AutoModel") if case.model_type in TYPES]

every_attention = pytest.mark.parametrize("attention", ATTENTIONS)
every_encoder = pytest.mark.parametrize("case", ENCODERS, ids=str)
every_base = pytest.mark.parametrize("case", BASES, ids=str)
every_masked = pytest.mark.parametrize("case", MASKED, ids=str)


def assert_same_values(
    written: Checkpoint, inputs: dict[str, Tensor], attention: str = "sdpa", real=slice(None)
) -> None:
    """Our values are the oracle's; of values that belong to tokens only those of `real` tokens are compared."""
    with torch.no_grad():
        ours = values(written.load(attn_implementation=attention)(**inputs))
        theirs = values(written.reference(attention)(**inputs))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert not tensor.isnan().any(), name
        where = real if not isinstance(real, Tensor) or tensor.shape[:2] == real.shape else slice(None)
        assert_close(tensor[where], theirs[name][where], written.tolerance)


@every_attention
@pytest.mark.parametrize("case", [case for case in ENCODERS if case.config["type_vocab_size"] > 1], ids=str)
def test_segments(checkpoint, case, attention):
    """Two segments in padded rows; each row's own border."""
    batch = padded_batch((20, 11, 2), side="right")
    segments = (torch.arange(20) >= torch.tensor([7, 4, 1])[:, None]).long()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "token_type_ids": segments}
    for scale in SCALES:
        assert_same_values(checkpoint(case, scale), inputs, attention, batch.attention_mask.bool())
    with torch.no_grad():
        model = checkpoint(case).load()
        one, two = (values(model(batch.input_ids, token_type_ids=types)) for types in (segments * 0, segments))
    assert all((one[name] - two[name]).abs().max() > 0.05 for name in one)


@pytest.mark.parametrize("side", ["left", "right"])
@every_attention
@every_encoder
def test_rows_of_the_models_own_padding(checkpoint, case, attention, side):
    """Padding has the id of config.json, of which some models take the positions."""
    batch = padded_batch(side=side)
    mask = batch.attention_mask
    inputs = {"input_ids": batch.input_ids.masked_fill(mask == 0, case.config["pad_token_id"]), "attention_mask": mask}
    for scale in SCALES:
        assert_same_values(checkpoint(case, scale), inputs, attention, mask.bool())
    assert_same_values(checkpoint(case), {"input_ids": inputs["input_ids"]}, attention)  # padding has a position too


@every_base
def test_padding_changes_nothing(checkpoint, case):
    """A row's hidden states are those that it has alone, and no token sees padding."""
    model, pad = checkpoint(case).load(), case.config["pad_token_id"]
    batch = padded_batch((20, 11, 1), side="right")
    ids = batch.input_ids.masked_fill(batch.attention_mask == 0, pad)
    with torch.no_grad():
        together = model(ids, batch.attention_mask)
        for row, length in enumerate((20, 11, 1)):
            alone = model(ids[row : row + 1, :length])
            assert_close(together.last_hidden_state[row, :length], alone.last_hidden_state[0], 2e-4)
            assert_close(together.pooler_output[row], alone.pooler_output[0], 2e-4)
        unmasked = model(ids).last_hidden_state
    assert (unmasked[1, :11] - together.last_hidden_state[1, :11]).abs().max() > 0.05


@every_base
def test_every_token_sees_every_token(checkpoint, case):
    """Changing the last token changes the hidden state of the first."""
    model, ids = checkpoint(case).load(), token_ids(1)
    changed = ids.clone()
    changed[0, -1] = ids[0, -1] % 100 + 3 if ids[0, -1] != 3 else 4
    assert not torch.equal(changed, ids)
    for attention in ATTENTIONS:
        model.config.attn_implementation = attention
        with torch.no_grad():
            assert (model(ids).last_hidden_state - model(changed).last_hidden_state)[0, 0].abs().max() > 1e-3


@every_attention
@every_encoder
def test_embeddings_given_instead_of_ids(checkpoint, case, attention):
    """Positions then count from the first token, whatever the tokens are."""
    written = checkpoint(case)
    mask = padded_batch(side="right").attention_mask
    with torch.no_grad():
        embeddings = written.load().get_input_embeddings()(token_ids(3))
    assert_same_values(written, {"inputs_embeds": embeddings}, attention)
    assert_same_values(written, {"inputs_embeds": embeddings, "attention_mask": mask}, attention, mask.bool())


@every_encoder
def test_the_longest_text(checkpoint, case):
    """`longest_text` tokens have positions, one more has none, here and in the oracle."""
    written = checkpoint(case)
    length = case.config_class.from_pretrained(written.folder).longest_text
    assert_same_values(written, {"input_ids": token_ids(1, length)})
    for model in (written.load(), written.reference()):
        with pytest.raises((IndexError, RuntimeError)):
            model(token_ids(1, length + 1))


@every_encoder
def test_only_what_needs_a_pooler_has_one(checkpoint, case):
    ours, theirs = checkpoint(case).load(), checkpoint(case).reference()
    assert (ours.base_model.pooler is None) == (theirs.base_model.pooler is None)


@pytest.mark.parametrize("attention", ATTENTIONS)
@every_masked
def test_loss_of_masked_words(checkpoint, case, attention):
    """Only labelled tokens count; in training, with dropout, the loss is the oracle's too."""
    written = checkpoint(case)
    ids = token_ids(2, 12)
    labels = ids.masked_fill(torch.arange(12) % 4 != 0, -100)
    losses = []
    for model in (written.load(attn_implementation=attention), written.reference(attention)):
        torch.manual_seed(0)
        losses.append(model.train()(input_ids=ids, labels=labels).loss)
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits[:, ::4].flatten(0, 1)
            expected = torch.nn.functional.cross_entropy(logits, ids[:, ::4].flatten())
            assert_close(model(input_ids=ids, labels=labels).loss, expected, written.tolerance)
    assert_close(losses[0], losses[1], written.tolerance)


@every_attention
@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@every_base
def test_each_dropout_is_the_oracles(tmp_path, case, rate, attention):
    """With one kind of dropout alone, both models draw the same masks in the same places."""
    both = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    written = save(case, "unit", tmp_path, **{**both, rate: 0.5})
    hidden = []
    for model in (written.load(attn_implementation=attention), written.reference(attention)):
        torch.manual_seed(0)
        with torch.no_grad():
            hidden.append(model.train()(token_ids()).last_hidden_state)
    assert_close(hidden[0], hidden[1], written.tolerance)
    with torch.no_grad():
        assert (hidden[0] - written.load()(token_ids()).last_hidden_state).abs().max() > 0.1


@pytest.mark.parametrize("rate", [None, 0.0, 0.5])
@pytest.mark.parametrize(
    "case", [case for case in cases("AutoModelForSequenceClassification") if case in ENCODERS], ids=str
)
def test_dropout_before_the_label(tmp_path, case, rate):
    """`classifier_dropout` counts in the head alone; null means the rate of the layers."""
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0, "classifier_dropout": rate}
    written = save(case, "unit", tmp_path, **rates)
    logits = []
    for model in (written.load(), written.reference()):
        torch.manual_seed(0)
        logits.append(model.train()(token_ids()).logits.detach())
    assert_close(logits[0], logits[1], written.tolerance)
    assert (logits[0] - written.load()(token_ids()).logits).abs().max() > 0.01


@pytest.mark.parametrize(
    "keys, name",
    [
        ({"is_decoder": True}, "is_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_type", TYPES)
def test_what_the_file_does_not_run_is_refused(model_type, keys, name):
    """Another attention or other positions would give plausible, wrong values."""
    case = next(case for case in BASES if case.model_type == model_type)
    config = case.config_class.from_dict({**ZOO[model_type]["config"], **keys})
    with pytest.raises(ValueError, match=name):
        case.model_class(config)
    fine = case.config_class.from_dict({**ZOO[model_type]["config"], "position_embedding_type": "absolute"})
    assert case.model_class(fine)(token_ids()).pooler_output.shape == (2, 32)


def test_auto_class_of_masked_language_models(checkpoint):
    """transformers finds the same class under the same name."""
    for case in MASKED:
        assert case.auto_class == "AutoModelForMaskedLM"
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(checkpoint(case).folder)
        assert type(theirs).__name__ == case.class_name
