"""Step-by-step decoding with every cache gives what the oracle gives step by step with its own.

Steps are compared with steps, not with one pass over the whole text: dynamic rotary scaling depends on the length so
far, so the two differ, in the oracle too.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import SCALES, assert_close
from oracle.zoo import Case, cases, first_case
from torch import Tensor
from transformers import DynamicCache

LENGTH = 24
CACHES = ("growing", "static", "made by the model")
CHUNKS = {
    "tokens": [9] + [1] * 15,
    "from the first token": [1] * LENGTH,
    "chunks": [7, 5, 1, 8, 3],
    "long chunk": [2, 21, 1],
}

every_case = pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
every_cache = pytest.mark.parametrize("kind", CACHES)


def make_cache(case: Case, model: Any, kind: str, max_length: int = LENGTH + 5) -> Any:
    """A cache of our file for this model; layers with a window slide. None lets the model make its own."""
    if kind == "static":
        return case.module.StaticCache(model.config.attention_windows, max_length)
    return case.module.KVCache(model.config.attention_windows) if kind == "growing" else None


@torch.no_grad()
def decode(model: Any, cache: Any, ids: Tensor, chunks: list[int], mask: Tensor | None = None) -> Tensor:
    """Logits `[batch, length, vocabulary]` of these chunks one after the other; with a mask, positions count tokens."""
    logits, start = [], 0
    for size in chunks:
        end = start + size
        inputs = {}
        if mask is not None:
            positions = (mask[:, :end].cumsum(-1) - 1).clamp(min=0)
            inputs = {"attention_mask": mask[:, :end], "position_ids": positions[:, start:]}
        output = model(ids[:, start:end], past_key_values=cache, use_cache=True, **inputs)
        cache = output.past_key_values
        logits.append(output.logits)
        start = end
    return torch.cat(logits, 1)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float, kind: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=tolerance, msg=lambda text: f"cache {kind}: {text}")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@every_case
def test_steps(checkpoint, case, chunks, scale):
    """The same text in these chunks, with each kind of cache."""
    written = checkpoint(case, scale)
    ids = token_ids(2, LENGTH)
    reference, model = written.reference(), written.load()
    theirs = decode(reference, DynamicCache(config=reference.config), ids, chunks)
    for kind in CACHES:
        assert_same(decode(model, make_cache(case, model, kind), ids, chunks), theirs, written.tolerance, kind)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("chunks", [CHUNKS["tokens"], CHUNKS["chunks"]], ids=["tokens", "chunks"])
@every_case
def test_steps_with_left_padding(checkpoint, case, chunks, attention):
    """Rows of three lengths: what real tokens get is the oracle's, and what padding gets is never NaN."""
    written = checkpoint(case)
    batch = padded_batch((LENGTH, 17, 3))
    real = batch.attention_mask.bool()
    reference, model = written.reference(attention), written.load(attn_implementation=attention)
    cache = DynamicCache(config=reference.config)
    theirs = decode(reference, cache, batch.input_ids, chunks, batch.attention_mask)
    for kind in CACHES:
        ours = decode(model, make_cache(case, model, kind), batch.input_ids, chunks, batch.attention_mask)
        assert not ours.isnan().any(), kind
        assert_same(ours[real], theirs[real], written.tolerance, kind)


@pytest.mark.parametrize(
    "case", [case for case in cases("AutoModelForCausalLM") if "rope_parameters" in case.config], ids=str
)
def test_dynamic_scaling_is_the_only_one_that_depends_on_the_steps(checkpoint, case):
    """Steps and one pass agree, except for dynamic scaling past the trained length, where the oracle's differ as well."""
    written = checkpoint(case)
    ids = token_ids(1, LENGTH)
    model = written.load()
    whole = decode(model, None, ids, [LENGTH])
    steps = decode(model, make_cache(case, model, "growing"), ids, CHUNKS["tokens"])
    if case.config["rope_parameters"]["rope_type"] == "dynamic":
        assert (whole - steps).abs().max() > 0.01
    else:
        assert_close(steps, whole, written.tolerance)


@every_case
def test_gradients_flow_through_a_growing_cache(checkpoint, case):
    """Training on a text in two chunks gives the gradients of one pass where nothing depends on the chunks."""
    if case.config.get("rope_parameters", {}).get("rope_type") == "dynamic":
        case = first_case()
    written = checkpoint(case)
    ids = token_ids(2, 12)

    def gradients(chunks: list[int]) -> dict[str, Tensor]:
        model = written.load()
        cache, start, total = make_cache(case, model, "growing"), 0, 0
        for size in chunks:
            logits = model(ids[:, start : start + size], past_key_values=cache, use_cache=True).logits
            total = total + logits.float().square().mean(-1).sum()
            start += size
        total.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    whole = gradients([12])
    for name, gradient in gradients([7, 1, 4]).items():
        assert_close(gradient, whole[name], written.tolerance * max(1.0, whole[name].abs().max().item()))


@every_cache
@every_case
def test_length_counts_the_tokens_seen(checkpoint, case, kind):
    model = checkpoint(case).load()
    cache = make_cache(case, model, kind)
    assert cache is None or cache.length == 0
    ids, seen = token_ids(2, LENGTH), 0
    for size in CHUNKS["chunks"]:
        with torch.no_grad():
            cache = model(ids[:, seen : seen + size], past_key_values=cache, use_cache=True).past_key_values
        seen += size
        assert cache.length == seen


@pytest.mark.parametrize("window", [None, 1, 2, 6])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_growing_cache_returns_the_tokens_that_its_range_names(window, chunks):
    """Keys and values are those of the positions in `mask_range`; a window keeps at most window - 1 past tokens."""
    cache = first_case().module.KVCache([window, None])
    text = torch.arange(LENGTH, dtype=torch.float32).reshape(1, 1, LENGTH, 1).expand(2, 3, LENGTH, 4)
    start = 0
    for size in chunks:
        first, count = cache.mask_range(size, window)
        end = start + size
        assert (first, first + count) == (0 if window is None else max(0, start - window + 1), end)
        new = text[:, :, start:end]
        keys, values = cache.update(new.clone(), -new, 0)
        cache.update(new.clone(), -new, 1)
        assert torch.equal(keys, text[:, :, first:end])
        assert torch.equal(values, -text[:, :, first:end])
        assert cache.length == end
        start = end


def test_a_sliding_cache_does_not_grow_with_the_text():
    """After a thousand tokens a layer with a window of 6 holds a few windows at most."""
    window = 6
    cache = first_case().module.KVCache([window])
    key = torch.zeros(1, 1, 1, 4)
    for _ in range(1000):
        keys, _ = cache.update(key, key, 0)
    assert keys.shape[2] == window
    assert keys.untyped_storage().nbytes() <= 4 * window * key.nbytes


def test_a_growing_cache_copies_old_tokens_rarely():
    """Most steps write in place: a thousand tokens need a new buffer about ten times."""
    cache = first_case().module.KVCache([None])
    key = torch.zeros(1, 1, 1, 4)
    buffers = []
    for _ in range(1000):
        keys, _ = cache.update(key, key, 0)
        buffers.append(keys.untyped_storage().data_ptr())
    assert sum(one != other for one, other in itertools.pairwise(buffers)) <= 15


def test_static_cache_has_one_shape_and_one_place():
    """Every update returns the same buffers, so that a captured or compiled step can be repeated."""
    cache = first_case().module.StaticCache([None], 12)
    places = set()
    for size in (5, 1, 1, 4):
        key = torch.ones(2, 3, size, 4)
        keys, values = cache.update(key, key, 0)
        assert keys.shape == values.shape == (2, 3, 12, 4)
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1
    assert keys[0, 0, :, 0].tolist() == [1] * 11 + [0]


def test_static_cache_that_is_too_short_says_so():
    cache = first_case().module.StaticCache([None], 4)
    key = torch.ones(1, 1, 3, 4)
    cache.update(key, key, 0)
    with pytest.raises(ValueError, match=r"^6 tokens do not fit into a StaticCache of 4$"):
        cache.update(key, key, 0)
