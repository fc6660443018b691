"""A call of `generate`, with everything settled before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unibody import logging
from unibody.core.cache import KVCache, StaticCache
from unibody.generation.configuration import (
    DEFAULTS,
    LEFT_OUT,
    NEW_TOKENS,
    WITHOUT_EFFECT,
    GenerationConfig,
    field_names,
    nearest,
)
from unibody.generation.order import Frame, make_processors
from unibody.generation.processors import LogitsProcessorList
from unibody.generation.reader import Reader
from unibody.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

logger = logging.get_logger(__name__)
ARGUMENTS = (
    "inputs", "input_ids", "generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn",
    "assistant_model", "streamer", "attention_mask", "past_key_values", "tokenizer", "seed",
)  # fmt: skip


@dataclass
class Request:
    """What to generate from, and how; B texts, which are num_beams or num_return_sequences copies of each prompt."""

    settings: Any  # a GenerationConfig in which what has a default is not None
    input_ids: Tensor  # [B, S]
    frame: Frame
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    reader: Reader
    pad: int
    generator: torch.Generator | None
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    def record(self, scores: Tensor, logits: Tensor) -> None:
        """Keeps what is to be returned of a step."""
        if self.settings.output_scores:
            self.scores.append(scores)
        if self.settings.output_logits:
            self.logits.append(logits)

    def choose(self, scores: Tensor) -> Tensor:
        """The next tokens [B]: the likeliest, or drawn."""
        if not self.settings.do_sample:
            return scores.argmax(-1)
        return torch.multinomial(scores.softmax(-1), 1, generator=self.generator)[:, 0]

    def ends(self, input_ids: Tensor) -> Tensor:
        """Which texts are finished [B]."""
        return self.criteria(input_ids, tuple(self.scores) if self.settings.output_scores else None)


def settle(model: Any, given: GenerationConfig | None, options: dict[str, Any]) -> Any:
    """The options of a call over those of its configuration, of the model's, and the defaults; None in a call is the default.

    ValueError: one is unknown, makes no sense or is not supported. TypeError: `given` is no configuration.
    """
    if given is not None and not hasattr(given, "to_diff_dict"):
        raise TypeError(
            f"generation_config is a {type(given).__name__}, expected a GenerationConfig; a mask is given as attention_mask="
        )
    known = field_names() | set(WITHOUT_EFFECT) | LEFT_OUT.keys()
    for name in options:
        if name not in known:
            raise ValueError(f"generate has no option {name!r}: {nearest(name, [*sorted(known), *ARGUMENTS])}")
    values: dict[str, Any] = {}
    for layer in (model.generation_config.to_diff_dict(), {} if given is None else given.to_diff_dict(), options):
        if layer.get("max_length") is not None:  # whoever is nearer to the call says how long
            values.pop("max_new_tokens", None)
        values |= layer
    set_values = {name: value for name, value in values.items() if value is not None}
    settings = GenerationConfig.from_dict(DEFAULTS | set_values)
    for name, neutral in LEFT_OUT.items():
        if (value := getattr(settings, name, None)) not in neutral:
            raise ValueError(f"{name}={value!r} is not supported: set it to {neutral[-1]!r}")
    for reason in settings.without_effect():
        if reason.partition("=")[0] in options:
            logger.warning(reason)
    return settings


def make_request(
    model: Any,
    settings: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    *,
    past_key_values: Any = None,
    logits_processor: Sequence[Any] = (),
    stopping_criteria: Sequence[Any] = (),
    allowed: Callable[..., Any] | None = None,
    tokenizer: Any = None,
    seed: int | None = None,
) -> Request:
    """ValueError: the lengths, the mask, the cache or the number of texts do not fit together."""
    prompt, device = input_ids.shape[1], input_ids.device
    ends = token_list(settings.eos_token_id)
    maximum = longest(settings, prompt)
    copies = settings.num_beams if settings.num_beams > 1 else settings.num_return_sequences
    if settings.num_return_sequences > copies:
        raise ValueError(
            f"num_return_sequences={settings.num_return_sequences} is more than num_beams={settings.num_beams}: "
            "a prompt gives as many texts as it has beams"
        )
    if copies > 1 and settings.num_beams == 1 and not settings.do_sample:
        raise ValueError(
            f"num_return_sequences={copies} would be the same text each time: set do_sample=True, or num_beams={copies}"
        )
    pad = None if settings.pad_token_id == -1 else settings.pad_token_id
    mask = prompt_mask(input_ids, attention_mask, pad, ends)
    cache = past_key_values if past_key_values is not None else make_cache(model, settings, maximum)
    if past_key_values is not None and past_key_values.length >= prompt:
        raise ValueError(
            f"past_key_values holds {past_key_values.length} tokens and the prompt has {prompt}: "
            "give the whole text, at least one token of it new"
        )
    each = torch.arange(len(input_ids), device=device).repeat_interleave(copies)
    mask = None if mask is None else mask[each]
    padding = None if mask is None else (mask.cumsum(-1) == 0).sum(-1)
    frame = Frame(prompt, maximum, ends, settings.num_beams, padding, allowed)
    return Request(
        settings=settings,
        input_ids=input_ids[each],
        frame=frame,
        processors=make_processors(settings, frame, logits_processor),
        criteria=make_criteria(settings, frame, stopping_criteria, tokenizer),
        reader=Reader(model, cache, mask, copies),
        pad=next(token for token in (pad, *ends, 0) if token is not None),
        generator=None if seed is None else torch.Generator(device).manual_seed(seed),
    )


def make_criteria(settings: Any, frame: Frame, users: Sequence[Any], tokenizer: Any) -> StoppingCriteriaList:
    criteria = StoppingCriteriaList([MaxLengthCriteria(frame.max_length)])
    if settings.max_time is not None:
        criteria.append(MaxTimeCriteria(settings.max_time))
    if settings.stop_strings is not None:
        if tokenizer is None:
            raise ValueError(f"stop_strings={settings.stop_strings!r} needs the tokenizer: generate(…, tokenizer=…)")
        criteria.append(StopStringCriteria(tokenizer, settings.stop_strings))
    if frame.ends:
        criteria.append(EosTokenCriteria(frame.ends))
    criteria.extend(users)
    return criteria


def make_cache(model: Any, settings: Any, length: int) -> KVCache | None:
    windows = model.config.attention_windows
    if not settings.use_cache:
        return None
    if settings.cache_implementation == "static":
        return StaticCache(windows, max(length, settings.max_cache_len or 0))
    return KVCache(windows)


def longest(settings: Any, prompt: int) -> int:
    """How many tokens a text may have, prompt included."""
    if settings.max_new_tokens is not None:
        return int(prompt + settings.max_new_tokens)
    if settings.max_length is None:
        return prompt + NEW_TOKENS
    if settings.max_length <= prompt:
        raise ValueError(
            f"max_length={settings.max_length} leaves no room after a prompt of {prompt} tokens: raise it, or set max_new_tokens"
        )
    return int(settings.max_length)


def prompt_mask(ids: Tensor, mask: Tensor | None, pad: int | None, ends: list[int]) -> Tensor | None:
    """Where prompts are not padding [B, S]; without a mask, padding tokens are taken for it. None: there is none."""
    if mask is None and pad is not None and pad not in ends:
        mask = (ids != pad).long()
    if mask is None:
        return None
    if mask.shape != ids.shape:
        raise ValueError(f"attention_mask is {list(mask.shape)}, expected that of the prompts, {list(ids.shape)}")
    if bool(mask.all()):
        return None
    if not bool(mask[:, -1].all()):
        logger.warning("a prompt ends with padding: pad on the left, or the text goes on from it")
    return mask


def prompt_ids(inputs: Any, model: Any, bos: int | None) -> Tensor:
    """The prompts [B, S]; without one, the token that begins a text. ValueError: they are not the model's tokens, or none."""
    if inputs is None:
        if bos is None:
            raise ValueError("generate needs a prompt, input_ids=…: the model has no bos_token_id to begin with")
        return torch.tensor([[bos]], device=model.device)
    if not isinstance(inputs, Tensor) or inputs.is_floating_point() or inputs.ndim != 2:
        found = f"{inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"the prompt is {found}, expected a tensor of tokens' ids [batch, tokens]")
    if math.prod(inputs.shape) == 0:
        raise ValueError("the prompt has no tokens: give at least one, such as the token that begins a text")
    if int(inputs.min()) < 0 or int(inputs.max()) >= model.config.vocab_size:
        beyond = int(inputs.min()) if int(inputs.min()) < 0 else int(inputs.max())
        raise ValueError(f"token {beyond} of the prompt: the model has {model.config.vocab_size}, counted from 0")
    return inputs


def token_list(tokens: int | Sequence[int] | None) -> list[int]:
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else list(tokens)
