"""Models that get another number of tokens, or other embeddings; and what they say of themselves, beside transformers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.reference import Checkpoint, assert_close, oracle_class
from oracle.zoo import Case, cases, first_case

import unibody

HEADS = tuple(
    case
    for case in cases()
    if case.entry == case.model_type
    and case.auto_class in ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForTokenClassification")
)
IDS = torch.tensor([[5, 6, 7, 8]])


def ours(written: Checkpoint, **options: Any) -> Any:
    return getattr(unibody, written.case.class_name).from_pretrained(written.folder, **options)


@pytest.mark.parametrize("case", HEADS, ids=str)
@pytest.mark.parametrize("count", [140, 100])
def test_resized(case: Case, count: int, checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Old rows stay, new ones are about transformers'; saved, both read it again."""
    written = checkpoint(case)
    model, oracle = ours(written), written.reference()
    assert model.resize_token_embeddings(count) is model.get_input_embeddings()
    oracle.resize_token_embeddings(count)
    assert model.config.vocab_size == oracle.config.vocab_size == count
    mine, theirs = model.state_dict(), oracle.state_dict()
    for name, value in theirs.items():
        if name in mine:  # positions and the like are no state of ours
            assert_close(mine[name], value, 2e-3)
    assert model.num_parameters() == oracle.num_parameters()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(IDS).logits
        assert_close(type(model).from_pretrained(tmp_path)(IDS).logits, expected, 0.0)
        assert_close(oracle_class(case).from_pretrained(tmp_path)(IDS).logits, expected, written.tolerance)


def test_numbers_of_tokens(checkpoint: Callable[..., Checkpoint]) -> None:
    model = ours(checkpoint(first_case()))
    weight = model.get_input_embeddings().weight
    assert model.resize_token_embeddings().weight is weight
    assert model.resize_token_embeddings(pad_to_multiple_of=64).weight is weight
    assert model.resize_token_embeddings(130, pad_to_multiple_of=64).num_embeddings == 192
    assert model.lm_head.out_features == 192
    drawn = ours(checkpoint(first_case()))
    drawn.resize_token_embeddings(1000, mean_resizing=False)
    assert 0.015 < drawn.get_input_embeddings().weight[128:].std() < 0.025
    with pytest.raises(ValueError, match="at least one token"):
        model.resize_token_embeddings(0)


def test_offloaded_rows_are_refused(checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> None:
    model = ours(checkpoint(first_case()), device_map={"": "cpu", "lm_head": "disk"}, offload_folder=tmp_path)
    with pytest.raises(ValueError, match="packed, offloaded or spread over processes"):
        model.resize_token_embeddings(140)
    assert model.config.vocab_size == 128


def test_other_embeddings(checkpoint: Callable[..., Checkpoint]) -> None:
    model, oracle = ours(checkpoint(first_case())), checkpoint(first_case()).reference()
    torch.manual_seed(0)
    table, head = torch.nn.Embedding(128, 32), torch.nn.Linear(32, 128)
    for one in (model, oracle):
        one.set_input_embeddings(table)
        one.set_output_embeddings(head)
        assert one.get_input_embeddings() is table
        assert one.get_output_embeddings() is head
    assert_close(model(IDS).logits, oracle(IDS).logits, 2e-4)
    with pytest.raises(ValueError, match="predicts no tokens"):
        ours(checkpoint(first_case("AutoModel"))).set_output_embeddings(head)


def test_tied_anew(checkpoint: Callable[..., Checkpoint]) -> None:
    model = ours(checkpoint(next(case for case in HEADS if case.class_name == "GemmaForCausalLM")))
    model.set_input_embeddings(torch.nn.Embedding(128, 32))
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    model.tie_weights()
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_what_a_model_says_of_itself(case: Case, checkpoint: Callable[..., Checkpoint]) -> None:
    model, oracle = ours(checkpoint(case)), checkpoint(case).reference()
    for one in (model, oracle):
        next(one.parameters()).requires_grad_(False)
    for options in ({}, {"only_trainable": True}, {"exclude_embeddings": True}):
        if options != {"exclude_embeddings": True} or case.model_type in (
            "llama",
            "mistral",
        ):  # theirs leaves out more
            assert model.num_parameters(**options) == oracle.num_parameters(**options)
    assert model.get_memory_footprint(return_buffers=False) == oracle.get_memory_footprint(return_buffers=False)
    assert model.can_generate() == oracle.can_generate()
    assert model.get_decoder() is model.base_model
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == model.config.attn_implementation == "eager"
    with pytest.raises(ValueError, match="attn_implementation 'flash' is not one of"):
        model.set_attn_implementation("flash")


def test_packed_weights_count_as_if_they_were_not(checkpoint: Callable[..., Checkpoint]) -> None:
    plain = ours(checkpoint(first_case()))
    packed = ours(checkpoint(first_case()), quantization_config=unibody.BitsAndBytesConfig(load_in_4bit=True))
    assert packed.num_parameters() == plain.num_parameters()
    assert packed.get_memory_footprint() < plain.get_memory_footprint()


def test_gradient_checkpointing(checkpoint: Callable[..., Checkpoint]) -> None:
    """The same gradients, with and without; and again without."""
    model, oracle = ours(checkpoint(first_case())).train(), checkpoint(first_case()).reference().train()
    oracle(IDS, labels=IDS).loss.backward()
    for enable in (True, False):
        if enable:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        assert model.is_gradient_checkpointing is enable
        model.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        for name, weight in oracle.named_parameters():
            assert_close(model.get_parameter(name).grad, weight.grad, 1e-4)


def test_gradients_of_what_comes_before(checkpoint: Callable[..., Checkpoint]) -> None:
    model = ours(checkpoint(first_case()))
    model.requires_grad_(False)
    model.enable_input_require_grads()
    assert model(IDS).logits.requires_grad
    model.disable_input_require_grads()
    assert not model(IDS).logits.requires_grad


def test_other_shapes_are_left_out(checkpoint: Callable[..., Checkpoint]) -> None:
    """With `ignore_mismatched_sizes` the head of another number of labels is random, and all else is read."""
    case = next(case for case in cases() if case.class_name == "LlamaForSequenceClassification")
    options = {"num_labels": 7, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with pytest.warns(UserWarning, match=r"random now: score\.weight"):
        model, info = ours(checkpoint(case), **options)
    _, expected = transformers.LlamaForSequenceClassification.from_pretrained(checkpoint(case).folder, **options)
    assert info["missing_keys"] == set(expected["missing_keys"])
    assert info["mismatched_keys"] == {name for name, *_ in expected["mismatched_keys"]}
    assert model.score.weight.shape == (7, 32)
    assert torch.isfinite(model.score.weight).all()
