"""The library's edition and the oracle's model of one checkpoint, side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from oracle.reference import Checkpoint, save
from oracle.zoo import Case, first_case
from torch import Tensor

import unibody

PAD = 1
"""Not 0, which the oracle's beam search takes for no padding token at all."""


class Pair(NamedTuple):
    """Both models of a checkpoint; what the options of `theirs` and `ours` are given is the same."""

    written: Checkpoint
    model: Any
    reference: Any

    def theirs(self, ids: Tensor, seed: int = 0, **options: Any) -> Any:
        torch.manual_seed(seed)
        with torch.no_grad():
            return self.reference.generate(ids, **options)

    def ours(self, ids: Tensor, seed: int = 0, **options: Any) -> Any:
        torch.manual_seed(seed)
        return self.model.generate(ids, **options)

    def assert_same(self, ids: Tensor, seed: int = 0, **options: Any) -> Tensor:
        """The same tokens, and scores to 1e-5 of their size; the tokens."""
        options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
        theirs, ours = self.theirs(ids, seed, **options), self.ours(ids, seed, **options)
        assert torch.equal(ours.sequences, theirs.sequences)
        for name in ("scores", "logits"):
            for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
        if "sequences_scores" in theirs:
            torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=1e-5, atol=1e-5)
            assert torch.equal(ours.beam_indices, theirs.beam_indices)
        return ours.sequences


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """`pair(case)`, whose models are shared: leave them as they are.

    Gemma 2 caps its logits: at the larger scale many are equal, and any of the texts that are is right.
    """

    @functools.cache
    def made(case: Case) -> Pair:
        scale = "small" if case.model_type == "gemma2" else "unit"
        written = save(case, scale, tmp_path_factory.mktemp("generation") / str(case))
        model, reference = unibody.AutoModelForCausalLM.from_pretrained(written.folder), written.reference()
        model.generation_config.pad_token_id = reference.generation_config.pad_token_id = PAD
        return Pair(written, model, reference)

    return made


@pytest.fixture
def llama(pair: Callable[..., Pair]) -> Pair:
    return pair(first_case())
