"""Generating text, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core.cache import KVCache, StaticCache
from unibody.core.choices import choose
from unibody.core.sampling import choose_tokens


class GenerationMixin:
    """Text generation for models whose forward returns logits and a cache; the options are those of stream_tokens."""

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, streamer: Any = None, **options: Any
    ) -> Tensor:
        """The prompts and what follows them [B, S + new]; a streamer gets put(tokens [B]) at each step and end()."""
        steps = [input_ids]
        for tokens in self.stream(input_ids, attention_mask, **options):
            steps.append(tokens[:, None])
            if streamer is not None:
                streamer.put(tokens)
        if streamer is not None:
            streamer.end()
        return torch.cat(steps, dim=1)

    def stream(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Iterator[Tensor]:
        """The next tokens [B], step by step."""
        for tokens in stream_tokens(self, input_ids, attention_mask, **options):
            yield tokens.clone()  # outside of inference mode, where it may be used like any tensor


@torch.inference_mode()
def stream_tokens(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int = 20,
    min_new_tokens: int = 0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
    past_key_values: Any = None,
    cache_implementation: str | None = None,
) -> Iterator[Tensor]:
    """The tokens [B] that follow prompts [B, S], step by step, until each row has met an end-of-sequence token.

    Rows that have get padding. Prompts are padded on the left, where `attention_mask` is 0. What `past_key_values`
    already holds of them is not computed again. `cache_implementation` may be "static": buffers of one length.
    """
    config, device, length = model.config, input_ids.device, input_ids.shape[1] + max_new_tokens
    eos = config.eos_token_id if eos_token_id is None else eos_token_id
    ends = torch.tensor([] if eos is None else eos, dtype=torch.long, device=device).flatten()
    pad = next(token for token in (pad_token_id, config.pad_token_id, *ends.tolist(), 0) if token is not None)
    if input_ids.shape[1] == 0:
        raise ValueError("the prompt has no tokens: give at least one, such as the token that begins a text")
    caches = {"dynamic": KVCache(config.attention_windows), "static": StaticCache(config.attention_windows, length)}
    new = choose(caches, cache_implementation or "dynamic", "cache_implementation")
    cache = new if past_key_values is None else past_key_values
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    mask = None if attention_mask is None or attention_mask.all() else attention_mask
    finished = torch.zeros(len(input_ids), dtype=torch.bool, device=device)
    tokens = input_ids[:, cache.length :]
    for step in range(max_new_tokens):
        positions = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)[:, cache.length :]
        logits = model(tokens, mask, positions, cache, use_cache=True, logits_to_keep=1).logits[:, -1]  # [B, V]
        if step < min_new_tokens:
            logits[:, ends] = -torch.inf
        chosen = choose_tokens(logits, do_sample * temperature, top_k, top_p, generator).masked_fill(finished, pad)
        yield chosen
        finished |= torch.isin(chosen, ends)
        if finished.all():
            return
        tokens, mask = chosen[:, None], None if mask is None else F.pad(mask, (0, 1), value=1)
