"""Which options make which processors, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unibody.generation import bans, filters, penalties
from unibody.generation.processors import LogitsProcessor, LogitsProcessorList


@dataclass(frozen=True)
class Frame:
    """What processors need to know beside their options."""

    prompt_length: int
    max_length: int
    ends: list[int]  # the tokens that end a text
    num_beams: int = 1
    padding: Tensor | None = None  # [B], how many tokens of each prompt are padding
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Any] | None = None

    @property
    def least(self) -> int:
        """How many tokens filters keep: with beams, one more than may all end a text."""
        return 1 if self.num_beams == 1 else max(len(self.ends), 1) + 1


Row = tuple[str, object, Callable[[Any, Frame], LogitsProcessor]]

SHAPING: tuple[Row, ...] = (  # option, the value that does nothing, and what it makes
    ("sequence_bias", None, lambda value, at: penalties.SequenceBiasLogitsProcessor(value)),
    ("repetition_penalty", 1, lambda value, at: penalties.RepetitionPenaltyLogitsProcessor(value, at.padding)),
    ("presence_penalty", 0, lambda value, at: penalties.PresencePenaltyLogitsProcessor(value, at.prompt_length)),
    ("frequency_penalty", 0, lambda value, at: penalties.FrequencyPenaltyLogitsProcessor(value, at.prompt_length)),
    ("no_repeat_ngram_size", 0, lambda value, at: bans.NoRepeatNGramLogitsProcessor(value)),
    ("bad_words_ids", None, lambda value, at: bans.NoBadWordsLogitsProcessor(value, at.ends)),
    ("min_length", 0, lambda value, at: bans.MinLengthLogitsProcessor(value, at.ends)),
    ("min_new_tokens", 0, lambda value, at: bans.MinNewTokensLengthLogitsProcessor(at.prompt_length, value, at.ends)),
    ("prefix_allowed_tokens_fn", None, lambda value, at: bans.PrefixConstrainedLogitsProcessor(value, at.num_beams)),
    ("forced_bos_token_id", None, lambda value, at: bans.ForcedBOSTokenLogitsProcessor(value)),
    ("forced_eos_token_id", None, lambda value, at: bans.ForcedEOSTokenLogitsProcessor(at.max_length, value)),
    ("remove_invalid_values", False, lambda value, at: bans.InfNanRemoveLogitsProcessor()),
    (
        "exponential_decay_length_penalty",
        None,
        lambda value, at: penalties.ExponentialDecayLengthPenalty(value, at.ends, at.prompt_length),
    ),
    ("suppress_tokens", None, lambda value, at: bans.SuppressTokensLogitsProcessor(value)),
    (
        "begin_suppress_tokens",
        None,
        lambda value, at: bans.SuppressTokensAtBeginLogitsProcessor(value, at.prompt_length),
    ),
)
SAMPLING: tuple[Row, ...] = (
    ("temperature", 1, lambda value, at: filters.TemperatureLogitsWarper(value)),
    ("top_k", 0, lambda value, at: filters.TopKLogitsWarper(value, min_tokens_to_keep=at.least)),
    ("top_p", 1, lambda value, at: filters.TopPLogitsWarper(value, min_tokens_to_keep=at.least)),
    ("min_p", None, lambda value, at: filters.MinPLogitsWarper(value, min_tokens_to_keep=at.least)),
    ("typical_p", 1, lambda value, at: filters.TypicalLogitsWarper(value, min_tokens_to_keep=at.least)),
    ("epsilon_cutoff", 0, lambda value, at: filters.EpsilonLogitsWarper(value, min_tokens_to_keep=at.least)),
    ("eta_cutoff", 0, lambda value, at: filters.EtaLogitsWarper(value, min_tokens_to_keep=at.least)),
)
LAST: tuple[Row, ...] = (("renormalize_logits", False, lambda value, at: filters.LogitNormalization()),)


def make_processors(settings: Any, frame: Frame, users: Sequence[Any] = ()) -> LogitsProcessorList:
    """The processors of the settings, the user's own before those that sampling adds.

    One of the user's takes the place of one of its class. The order is transformers'.
    """

    def made(rows: Sequence[Row]) -> Iterator[LogitsProcessor]:
        for name, neutral, make in rows:
            value = getattr(settings if hasattr(settings, name) else frame, name)
            if value not in (None, neutral) and type(processor := make(value, frame)) not in replaced:
                yield processor

    replaced = {type(processor) for processor in users}
    sampling = made(SAMPLING) if settings.do_sample else ()
    return LogitsProcessorList([*made(SHAPING), *users, *sampling, *made(LAST)])
