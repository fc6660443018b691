"""Hidden states and attentions of the library's models, against transformers'."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.inputs import VOCABULARY
from oracle.reference import Checkpoint, assert_close
from oracle.zoo import Case, cases, first_case
from torch import Tensor

import unibody


def inputs() -> dict[str, Tensor]:
    """Two rows, the second padded on the right."""
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def ours(written: Checkpoint, **options: Any) -> Any:
    return getattr(unibody, written.case.class_name).from_pretrained(written.folder, **options)


@pytest.mark.parametrize("case", cases(), ids=str)
@torch.no_grad()
def test_every_model(case: Case, checkpoint: Callable[..., Checkpoint]) -> None:
    """Both are those of transformers, and what there was before is as without them."""
    written = checkpoint(case)
    asked = {"output_hidden_states": True, "output_attentions": True}
    model = ours(written, attn_implementation="eager")
    expected = written.reference("eager")(**inputs(), **asked)
    found, plain = model(**inputs(), **asked), model(**inputs())
    assert type(found).__name__ == type(plain).__name__
    assert found._fields == (*plain._fields, "hidden_states", "attentions")
    torch.testing.assert_close(
        [v for v in found[:-2] if isinstance(v, Tensor)], [v for v in plain if isinstance(v, Tensor)]
    )
    for name in ("hidden_states", "attentions"):
        values, wanted = getattr(found, name), getattr(expected, name)
        assert len(values) == len(wanted)
        for one, other in zip(values, wanted, strict=True):
            assert_close(one[0], other[0], written.tolerance)
            # Of padding, only what it is given is comparable.
            assert_close(
                one[1, ..., :6, :] if name == "attentions" else one[1, :6],
                other[1, ..., :6, :] if name == "attentions" else other[1, :6],
                written.tolerance,
            )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attentions_of_a_step_and_their_gradients(attention: str, checkpoint: Callable[..., Checkpoint]) -> None:
    written = checkpoint(first_case())
    model, oracle = ours(written, attn_implementation=attention), written.reference("eager")
    ids = inputs()["input_ids"][:1]
    for one in (model, oracle):
        first = one(ids[:, :5], use_cache=True)
        step = one(
            ids[:, 5:], past_key_values=first.past_key_values, output_attentions=True, output_hidden_states=True
        )
        assert step.attentions[0].shape == (1, 4, 4, 9)
        (step.attentions[1].square().sum() + step.hidden_states[1].square().sum()).backward()
        assert first is not None
    assert_close(
        model.model.layers[0].self_attn.q_proj.weight.grad, oracle.model.layers[0].self_attn.q_proj.weight.grad, 1e-3
    )


def test_asked_for_by_the_configuration(checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> None:
    model = ours(checkpoint(first_case()), output_hidden_states=True)
    model.save_pretrained(tmp_path)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    for one in (model, again):
        assert len(one(**inputs()).hidden_states) == 3
        assert not hasattr(one(**inputs(), output_hidden_states=False), "hidden_states")


def test_plain_tuples(checkpoint: Callable[..., Checkpoint]) -> None:
    """`return_dict=False` leaves out what there is not."""
    model, oracle = ours(checkpoint(first_case())), checkpoint(first_case()).reference()
    for labels in (None, inputs()["input_ids"]):
        found = model(**inputs(), labels=labels, return_dict=False)
        expected = oracle(**inputs(), labels=labels, return_dict=False)
        assert type(found) is tuple
        assert len(found) == len(expected)
        assert_close(found[-2], expected[-2], 2e-4)
    assert model(**inputs(), return_dict=True).logits.shape == (2, 9, VOCABULARY)


def test_asked_by_name(checkpoint: Callable[..., Checkpoint]) -> None:
    """As the ecosystem's outputs, by the names of those that there are; and still a tuple, that can be pickled."""
    ids = inputs()["input_ids"]
    model, oracle = ours(checkpoint(first_case())), checkpoint(first_case()).reference()
    for labels in (None, ids):
        found, expected = model(ids, labels=labels), oracle(ids, labels=labels)
        assert list(found.keys()) == list(expected.keys())
        assert dict(found)["logits"] is found["logits"] is found.get("logits") is found.logits is found[1]
        assert ("loss" in found) == ("loss" in expected)
        assert found.get("attentions", 3) == 3
        assert len(found.to_tuple()) == len(found.items()) == len(expected.to_tuple())
    with pytest.raises(KeyError, match="'loss' is not among logits, past_key_values"):
        model(ids)["loss"]
    again = pickle.loads(pickle.dumps(model(ids, use_cache=False, output_hidden_states=True)))
    assert again["hidden_states"][0].shape == (2, 9, 32)
    texts = model.generate(ids[:1], max_new_tokens=2, return_dict_in_generate=True)
    assert texts["sequences"] is texts.sequences
    assert list(texts.keys()) == ["sequences", "past_key_values"]


def test_own_forward(checkpoint: Callable[..., Checkpoint]) -> None:
    """A class of one's own that takes the option itself gets it; one that hands it on sees what was found."""

    class Loud(unibody.LlamaForCausalLM):
        def forward(self, input_ids: Tensor, output_hidden_states: bool = False) -> Any:  # type: ignore[override]
            return super().forward(input_ids, output_hidden_states=output_hidden_states)  # type: ignore[call-arg]

    model = Loud.from_pretrained(checkpoint(first_case()).folder)
    assert len(model(inputs()["input_ids"], output_hidden_states=True).hidden_states) == 3


def test_either_tokens_or_vectors(checkpoint: Callable[..., Checkpoint]) -> None:
    for class_name in ("LlamaForCausalLM", "BertForMaskedLM"):
        model = ours(checkpoint(next(case for case in cases() if case.class_name == class_name)))
        ids = inputs()["input_ids"]
        vectors = model.get_input_embeddings()(ids)
        for given in ({}, {"input_ids": ids, "inputs_embeds": vectors}):
            with pytest.raises(ValueError, match="either input_ids or inputs_embeds: give one"):
                model(**given)
