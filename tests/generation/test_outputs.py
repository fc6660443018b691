"""What `return_dict_in_generate` gives, and what can be done with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generation.conftest import Pair
from oracle.inputs import token_ids

IDS = token_ids(2, 9)
ALL = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "max_new_tokens": 8}


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": [39, 13, 20]}], ids=["greedy", "beams"]
)
@pytest.mark.parametrize("normalize", [False, True])
def test_transition_scores(llama: Pair, options: dict[str, Any], normalize: bool) -> None:
    theirs, ours = llama.theirs(IDS, **ALL, **options), llama.ours(IDS, **ALL, **options)
    beams = (theirs.beam_indices, ours.beam_indices) if options else (None, None)
    expected = llama.reference.compute_transition_scores(theirs.sequences, theirs.scores, beams[0], normalize)
    found = llama.model.compute_transition_scores(ours.sequences, ours.scores, beams[1], normalize)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    if options and not normalize:
        lengths = (ours.beam_indices >= 0).sum(-1)
        torch.testing.assert_close(found.sum(-1) / lengths, ours.sequences_scores)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_only_what_is_asked_for(llama: Pair, options: dict[str, Any]) -> None:
    plain = llama.ours(IDS, max_new_tokens=8, **options)
    found = llama.ours(IDS, max_new_tokens=8, return_dict_in_generate=True, **options)
    assert torch.equal(found.sequences, plain)
    assert torch.equal(found[0], plain)
    assert {name for name, value in found._asdict().items() if value is None} >= {"scores", "logits"}
    assert llama.ours(IDS, **ALL | {"output_logits": False}, **options).logits is None


def test_a_text_goes_on_from_its_cache(llama: Pair) -> None:
    whole = llama.ours(IDS, max_new_tokens=16)
    half = llama.ours(IDS, max_new_tokens=8, return_dict_in_generate=True)
    assert half.past_key_values.length == 16
    passes: list[int] = []
    hook = llama.model.register_forward_pre_hook(
        lambda *call: passes.append(call[2]["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        found = llama.ours(half.sequences, past_key_values=half.past_key_values, max_new_tokens=8)
    finally:
        hook.remove()
    assert torch.equal(found, whole)
    assert passes == [1] * 8


def test_what_is_returned_can_be_trained_on(llama: Pair) -> None:
    """Plain tensors, without a graph; the model is in the mode in which it was."""
    llama.model.train()
    try:
        found = llama.ours(IDS, **ALL)
        assert llama.model.training
    finally:
        llama.model.eval()
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in (found.sequences, *found.scores))
    llama.model(found.sequences, labels=found.sequences).loss.backward()
    llama.model.zero_grad(set_to_none=True)
