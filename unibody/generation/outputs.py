"""What `generate` returns with `return_dict_in_generate=True`: named tuples, as what models return.

Sizes: B texts, S prompt tokens, V vocabulary, K beams of a prompt, P prompts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from unibody.outputs import keyed


@keyed
class GenerateDecoderOnlyOutput(NamedTuple):
    sequences: Tensor  # [B, S + new]
    scores: tuple[Tensor, ...] | None = None  # of each step [B, V], as the processors left them
    logits: tuple[Tensor, ...] | None = None  # of each step [B, V], as the model gave them
    past_key_values: Any = None


@keyed
class GenerateBeamDecoderOnlyOutput(NamedTuple):
    sequences: Tensor  # [B, S + new], the best of a prompt first
    sequences_scores: Tensor | None = (
        None  # [B], the log-probability divided by the length to the power of length_penalty
    )
    scores: tuple[Tensor, ...] | None = None  # of each step [P · K, V]: processed log-probabilities
    logits: tuple[Tensor, ...] | None = None  # of each step [P · K, V]
    beam_indices: Tensor | None = (
        None  # [B, new], the row of `scores` that each token was chosen from; after the end -1
    )
    past_key_values: Any = None
