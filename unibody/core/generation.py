"""Generating text, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from unibody.core.cache import KVCache, StaticCache
from unibody.core.sampling import choose_tokens


class GenerationMixin:
    """Text generation for models whose forward returns logits and a cache."""

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, streamer: Any = None, **options: Any
    ) -> Tensor:
        """The prompts and what follows them [B, prompt + new]; the options are those of stream_tokens.

        A `streamer` gets each step's tokens, put(tokens [B]), and end() at the end.
        """
        tokens = [input_ids]
        for step in self.stream(input_ids, attention_mask, **options):
            tokens.append(step[:, None])
            if streamer is not None:
                streamer.put(step)
        if streamer is not None:
            streamer.end()
        return torch.cat(tokens, dim=1)

    def stream(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Iterator[Tensor]:
        """The next tokens [B] of each step, as they are made; the options are those of stream_tokens."""
        return stream_tokens(self, input_ids, attention_mask, **options)


@torch.no_grad()
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
    """Tokens [B] that follow the prompts [B, S], which are padded on the left where attention_mask is 0, step by step.

    Ends when every row has met an end-of-sequence token (rows that have get padding) or after `max_new_tokens`.
    Tokens that `past_key_values` already holds are not computed again. The same `seed` gives the same draws.
    """
    config, device = model.config, input_ids.device
    eos = config.eos_token_id if eos_token_id is None else eos_token_id
    ends = torch.tensor([] if eos is None else eos, dtype=torch.long, device=device).flatten()  # [E]
    pad = next((i for i in (pad_token_id, config.pad_token_id, *ends.tolist()) if i is not None), 0)
    caches = {"dynamic": KVCache, "static": lambda windows: StaticCache(windows, input_ids.shape[1] + max_new_tokens)}
    cache = (
        caches[cache_implementation or "dynamic"](config.attention_windows)
        if past_key_values is None
        else past_key_values
    )
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    if attention_mask is not None and attention_mask.all():
        attention_mask = None
    finished = torch.zeros(len(input_ids), dtype=torch.bool, device=device)
    tokens, positions = input_ids[:, cache.length :], None
    for step in range(max_new_tokens):
        if attention_mask is not None:
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, cache.length :]
        outputs = model(
            tokens,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = outputs.logits[:, -1].float()  # [B, V]
        if step < min_new_tokens:
            logits[:, ends] = -torch.inf
        chosen = choose_tokens(logits, do_sample, temperature, top_k, top_p, generator).masked_fill(finished, pad)
        yield chosen
        finished |= torch.isin(chosen, ends)
        if finished.all():
            return
        tokens = chosen[:, None]
        if attention_mask is not None:
            attention_mask = torch.cat((attention_mask, attention_mask.new_ones(len(tokens), 1)), dim=1)
