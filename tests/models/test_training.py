"""One training step of a generated model: loss, gradients and updated parameters are the oracle's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import SCALES, Checkpoint, assert_close, save, stored_tensors
from oracle.zoo import Case, cases
from torch import Tensor

LEARNING_RATE = 0.1
LABELLED = [case for case in cases() if case.auto_class != "AutoModel"]
DECODERS = {case.model_type for case in cases("AutoModelForCausalLM")}
BY_LAST_TOKEN = [case for case in cases("AutoModelForSequenceClassification") if case.model_type in DECODERS]

every_scale = pytest.mark.parametrize("scale", SCALES)
every_case = pytest.mark.parametrize("case", LABELLED, ids=str)


def labelled_batch(case: Case) -> dict[str, Tensor]:
    """A right-padded batch with the labels of this head; ignored labels and out-of-range positions included."""
    batch = padded_batch((14, 9, 5), side="right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if case.auto_class == "AutoModelForCausalLM":
        return {**inputs, "labels": batch.input_ids.masked_fill(batch.attention_mask == 0, -100)}
    if case.auto_class == "AutoModelForMaskedLM":
        masked = (torch.arange(batch.input_ids.shape[1]) % 3 == 1) & batch.attention_mask.bool()
        return {**inputs, "labels": batch.input_ids.masked_fill(~masked, -100)}
    if case.auto_class == "AutoModelForSequenceClassification":
        return {**inputs, "labels": torch.tensor([2, 0, 1])}
    if case.auto_class == "AutoModelForTokenClassification":
        return {**inputs, "labels": (batch.input_ids % 3).masked_fill(batch.attention_mask == 0, -100)}
    if case.auto_class == "AutoModelForQuestionAnswering":
        return {**inputs, "start_positions": torch.tensor([1, 4, 99]), "end_positions": torch.tensor([3, 8, 2])}
    raise ValueError(f"no labels are known for {case.auto_class}: add them here")


def trained(model, inputs: dict[str, Tensor], folder: Path) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and parameters after one SGD step, the last two by their stored names.

    The seed lets dropout in a head draw the same mask in both models.
    """
    torch.manual_seed(0)
    model.train()
    loss = model(**inputs).loss
    loss.backward()
    with torch.no_grad():
        used = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradients = [parameter.grad.clone() for parameter in used]
        torch.optim.SGD(model.parameters(), lr=LEARNING_RATE).step()
        updated = stored_tensors(model, folder / "updated")
        for parameter, gradient in zip(used, gradients, strict=True):
            parameter.copy_(gradient)
    return loss.detach(), stored_tensors(model, folder / "gradients"), updated


def assert_same_step(written: Checkpoint, inputs: dict[str, Tensor], folder: Path, **options) -> None:
    """Losses within the scale's tolerance, gradients too, relative to the largest of their tensor where that is above 1."""
    ours, our_gradients, our_update = trained(written.load(**options), inputs, folder / "ours")
    theirs, their_gradients, their_update = trained(
        written.reference(options.get("attn_implementation", "sdpa")), inputs, folder / "theirs"
    )
    assert_close(ours, theirs, written.tolerance)
    assert set(our_gradients) == set(their_gradients)
    for name, gradient in their_gradients.items():
        size = gradient.abs().max().item()
        assert size > 0, f"the oracle's gradient of {name} is zero: the test would not see a missing one"
        tolerance = written.tolerance * max(1.0, size)
        assert_close(our_gradients[name], gradient, tolerance)
        assert_close(our_update[name], their_update[name], LEARNING_RATE * tolerance + 1e-6)


@every_scale
@every_case
def test_step(checkpoint, tmp_path, case, scale):
    assert_same_step(checkpoint(case, scale), labelled_batch(case), tmp_path)


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_step_with_eager_attention(checkpoint, tmp_path, case):
    assert_same_step(checkpoint(case), labelled_batch(case), tmp_path, attn_implementation="eager")


@pytest.mark.parametrize(
    "changes, labels",
    [
        ({"num_labels": 1}, torch.tensor([0.5, -1.0])),
        ({"num_labels": 3, "problem_type": "regression"}, torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, 0.25]])),
        ({"num_labels": 3}, torch.tensor([2, 0])),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, torch.tensor([1, 2])),
        ({"num_labels": 3}, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, torch.tensor([[1.0, 1.0, 0], [0.0, 0, 0]])),
    ],
    ids=["regression", "regression-3", "single", "single-named", "multi", "multi-named"],
)
@pytest.mark.parametrize("case", cases("AutoModelForSequenceClassification"), ids=str)
def test_problem_types(tmp_path, case, changes, labels):
    """The kind of problem follows from the number and the type of the labels, or from the configuration."""
    written = save(case, "unit", tmp_path / "checkpoint", **changes)
    batch = padded_batch((12, 7), side="right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
    assert_same_step(written, inputs, tmp_path)


@pytest.mark.parametrize("rate", [None, 0.0, 0.5])
@pytest.mark.parametrize("case", cases("AutoModelForTokenClassification"), ids=str)
def test_dropout_before_the_head(tmp_path, case, rate):
    """`classifier_dropout` of config.json counts; null means what its absence means."""
    written = save(case, "unit", tmp_path / "checkpoint", classifier_dropout=rate)
    assert_same_step(written, labelled_batch(case), tmp_path)


@pytest.mark.parametrize("case", BY_LAST_TOKEN, ids=str)
def test_several_rows_need_a_padding_token(tmp_path, case):
    """Without a padding token the last token of a row is unknown, so several rows are refused; one row is not."""
    written = save(case, "unit", tmp_path, pad_token_id=None)
    model, ids = written.load(), token_ids()
    with torch.no_grad():
        assert_close(model(ids[:1]).logits, written.reference()(ids[:1]).logits, written.tolerance)
        with pytest.raises(ValueError, match="pad_token_id"):
            model(ids)


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_ignored_labels_have_no_gradient(checkpoint, case):
    """Changing a token whose label is ignored and that no labelled token sees changes nothing."""
    model = checkpoint(case).load().train()
    ids = token_ids(1, 12)
    labels = ids.clone()
    labels[:, 8:] = -100
    changed = ids.clone()
    changed[:, 8:] = token_ids(1, 12, seed=1)[:, 8:]
    assert not torch.equal(ids, changed)
    assert torch.equal(model(ids, labels=labels).loss, model(changed, labels=labels).loss)


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_no_cache_while_training(checkpoint, case):
    model = checkpoint(case).load()
    ids = token_ids()
    assert model.train()(ids).past_key_values is None
    assert model.eval()(ids).past_key_values is not None
    assert model.eval()(ids, use_cache=False).past_key_values is None


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_attention_dropout_only_while_training(tmp_path, case, attention):
    model = save(case, "unit", tmp_path, attention_dropout=0.5).load(attn_implementation=attention)
    ids = token_ids()
    with torch.no_grad():
        kept, again = model(ids).logits, model(ids).logits
        assert torch.equal(kept, again)
        torch.manual_seed(0)
        assert (model.train()(ids).logits - kept).abs().max() > 0.01


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_loss_of_a_bfloat16_model_is_computed_in_float32(checkpoint, case):
    written = checkpoint(case)
    ids = token_ids()
    ours = written.load(dtype=torch.bfloat16)(ids, labels=ids)
    theirs = written.reference(dtype=torch.bfloat16)(ids, labels=ids)
    assert ours.loss.dtype == theirs.loss.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(ours.logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())
    assert_close(ours.loss, expected, 1e-5)
