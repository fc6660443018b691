"""torch.export of every class of the registry, with dynamic sizes: the program gives the very numbers of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import assert_close
from oracle.zoo import Case, cases
from torch import Tensor
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves

import unibody
from unibody.core.cache import KVCache
from unibody.generated.registry import MODELS
from unibody.integrations import DecodingStep

OWN = [case for case in cases() if case.entry == case.model_type and case.auto_class is not None]
CAUSAL = [case for case in OWN if case.auto_class == "AutoModelForCausalLM"]
SIZES = ((1, 1), (3, 7), (2, 40))


def build(case: Case) -> Any:
    torch.manual_seed(0)
    config = getattr(unibody, MODELS[case.model_type]["config"]).from_dict({**case.config, "use_cache": False})
    return getattr(unibody, case.class_name)(config).eval()


def batch(rows: int, length: int) -> dict[str, Tensor]:
    found = padded_batch((length, *(max(1, length - 3 * row) for row in range(1, rows))), side="right")
    return {"input_ids": found.input_ids, "attention_mask": found.attention_mask}


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def test_every_class_is_exported() -> None:
    named = {name for entry in MODELS.values() for name in entry["classes"].values()}
    assert {case.class_name for case in OWN} == named


@torch.no_grad()
@pytest.mark.parametrize("case", OWN, ids=str)
def test_program(case: Case) -> None:
    model, shape = build(case), {0: Dim("rows"), 1: Dim("length")}
    program = export(model, (), batch(2, 12), dynamic_shapes={"input_ids": shape, "attention_mask": shape}).module()
    for count, length in SIZES:
        inputs = batch(count, length)
        pairs = list(zip(tensors(program(**inputs)), tensors(model(**inputs)), strict=True))
        assert pairs
        for ours, eager in pairs:
            assert_close(ours, eager, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_step_with_cache(case: Case) -> None:
    """One program serves every step: tokens generated with it are those of `generate`."""
    model = build(case)
    windows = model.config.attention_windows
    step, ids = DecodingStep(model), token_ids(2, 12)
    past, rows = Dim("past", min=max(2, *(window or 0 for window in windows))), Dim("rows")
    cached: Any = [{0: rows, 2: past} if window is None else {0: rows} for window in windows]

    def prefilled(ids: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        cache, length = KVCache(windows), ids.shape[1]
        logits = model(ids, past_key_values=cache, use_cache=True).logits
        starts = [0 if window is None else length - window + 1 for window in windows]
        return logits, *(
            [buffer[:, :, start:length] for start, buffer in zip(starts, side, strict=True)]
            for side in (cache.keys, cache.values)
        )

    _, keys, values = prefilled(ids)
    mask = torch.ones(2, 13, dtype=torch.long)
    program = export(
        step, (token_ids(2, 1), mask, keys, values),
        dynamic_shapes=({0: rows}, {0: rows, 1: past + 1}, cached, cached),
    ).module()  # fmt: skip
    prompt = token_ids(3, 15, seed=1)
    logits, keys, values = prefilled(prompt)
    tokens = [logits[:, -1].argmax(-1, keepdim=True)]
    for length in range(16, 22):
        mask = torch.ones(3, length, dtype=torch.long)
        logits, keys, values = program(tokens[-1], mask, keys, values)
        tokens.append(logits[:, -1].argmax(-1, keepdim=True))
    assert torch.equal(torch.cat(tokens, 1), model.generate(prompt, max_new_tokens=7, eos_token_id=[])[:, 15:])
