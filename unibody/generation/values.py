"""What the fields of a GenerationConfig may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

CACHES = ("dynamic", "static", "hybrid", "sliding_window", "hybrid_chunked")  # the last three are old files' names
SCHEDULES = ("constant", "heuristic", "heuristic_transient")


def check_values(values: dict[str, Any]) -> None:
    """ValueError: one is not what its field may be."""
    for name, value in values.items():
        if value is not None and name in CHECKS and not CHECKS[name][0](value):
            raise ValueError(f"{name}={value!r}: expected {CHECKS[name][1]}")


def bias_pairs(biases: Any) -> Any:
    """[[ids, bias], …] of a sequence_bias in any of its forms, such as the keys "(5, 6)" to which JSON brings tuples."""
    if not isinstance(biases, dict):
        return biases
    ids = {key: re.findall(r"\d+", key) if isinstance(key, str) else key for key in biases}
    return [[[int(token) for token in ids[key]], bias] for key, bias in biases.items()]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_tokens(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(is_count(token) for token in value)


def is_bias(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(len(pair) == 2 and is_tokens(pair[0]) and pair[0] and is_number(pair[1]) for pair in value)
    )


Check = tuple[Callable[[Any], bool], str]
COUNT: Check = (is_count, "a number of tokens, 0 or more")
POSITIVE: Check = (lambda value: is_count(value) and value > 0, "a whole number above 0")
ABOVE_ZERO: Check = (lambda value: is_number(value) and value > 0, "a number above 0")
SHARE: Check = (lambda value: is_number(value) and 0 <= value <= 1, "within 0 and 1")
NUMBER: Check = (is_number, "a number")
FLAG: Check = (lambda value: isinstance(value, bool), "True or False")
TOKEN: Check = (is_count, "a token's id")
TOKENS: Check = (is_tokens, "a list of tokens' ids")
TOKEN_OR_TOKENS: Check = (lambda value: is_count(value) or is_tokens(value), "a token's id, or a list of such")
CHECKS: dict[str, Check] = {
    **dict.fromkeys(("max_length", "max_new_tokens", "num_beams", "num_return_sequences", "max_cache_len"), POSITIVE),
    **dict.fromkeys(("num_assistant_tokens", "prompt_lookup_num_tokens", "max_matching_ngram_size"), POSITIVE),
    **dict.fromkeys(("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size"), COUNT),
    **dict.fromkeys(("max_time", "repetition_penalty"), ABOVE_ZERO),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), SHARE),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "length_penalty"), NUMBER),
    **dict.fromkeys(("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values"), FLAG),
    **dict.fromkeys(("output_scores", "output_logits", "return_dict_in_generate"), FLAG),
    **dict.fromkeys(("bos_token_id", "forced_bos_token_id"), TOKEN),
    "pad_token_id": (lambda value: is_count(value) or value == -1, "a token's id"),  # old files write -1 for none
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), TOKEN_OR_TOKENS),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), TOKENS),
    "temperature": (ABOVE_ZERO[0], "a number above 0; for the likeliest token, do_sample=False"),
    "assistant_confidence_threshold": SHARE,
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", "True, False or 'never'"),
    "cache_implementation": (lambda value: value in CACHES, f"one of {', '.join(CACHES)}"),
    "num_assistant_tokens_schedule": (lambda value: value in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "stop_strings": (
        lambda value: bool(value) and all(isinstance(text, str) and text for text in value),
        "a text, or a list of texts, none of them empty",
    ),
    "bad_words_ids": (
        lambda value: isinstance(value, (list, tuple)) and bool(value) and all(is_tokens(w) and w for w in value),
        "a list of lists of tokens' ids, none of them empty",
    ),
    "sequence_bias": (is_bias, "a list of [tokens' ids, bias], none of them empty"),
    "exponential_decay_length_penalty": (
        lambda value: isinstance(value, (list, tuple)) and len(value) == 2 and is_count(value[0]) and is_number(value[1]),
        "[new tokens before it starts, factor per token]",
    ),
}  # fmt: skip
