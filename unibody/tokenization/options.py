"""How long encoded texts are to be: padding and truncation, as calls of a tokenizer name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unibody import logging

if TYPE_CHECKING:
    from unibody.tokenization.base import PreTrainedTokenizerBase

logger = logging.get_logger(__name__)

UNLIMITED = int(1e30)  # the `model_max_length` of a tokenizer that says none
PADDING = ("longest", "max_length", "do_not_pad")
TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")


@dataclass(frozen=True)
class Options:
    """What a call wants, all of it settled."""

    add_special_tokens: bool
    padding: str  # one of PADDING
    truncation: str  # one of TRUNCATION
    max_length: int | None  # tokens, special ones included
    stride: int  # tokens that a part has in common with the one before it
    is_split_into_words: bool
    pad_to_multiple_of: int | None
    padding_side: str
    return_token_type_ids: bool
    return_attention_mask: bool
    return_overflowing_tokens: bool
    return_special_tokens_mask: bool
    return_offsets_mapping: bool
    return_length: bool


def settle_lengths(
    tokenizer: PreTrainedTokenizerBase,
    padding: Any,
    truncation: Any,
    max_length: int | None,
    pad_to_multiple_of: int | None = None,
) -> tuple[str, str, int | None]:
    """The strategies of padding and truncation, and the length that they aim at. ValueError: no such strategy; no pad token."""
    pad = {True: "longest", False: "do_not_pad", None: "do_not_pad"}.get(padding, getattr(padding, "value", padding))
    cut = {True: "longest_first", False: "do_not_truncate", None: "do_not_truncate"}.get(
        truncation, getattr(truncation, "value", truncation)
    )
    if pad not in PADDING:
        raise ValueError(f"padding is {padding!r}: one of True, False and {', '.join(map(repr, PADDING))}")
    if cut not in TRUNCATION:
        raise ValueError(f"truncation is {truncation!r}: one of True, False and {', '.join(map(repr, TRUNCATION))}")
    if max_length is not None and truncation is None and pad == "do_not_pad":
        logger.info("max_length without truncation: texts are cut; say truncation=True, or False to keep them whole")
        cut = "longest_first"
    if max_length is None and "max_length" in (pad, *(["max_length"] if cut != "do_not_truncate" else [])):
        max_length = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED // 10**10 else None
        if max_length is None:
            logger.info(
                "neither max_length nor the tokenizer's model_max_length is given: nothing is padded to it or cut"
            )
            pad, cut = ("do_not_pad" if pad == "max_length" else pad), "do_not_truncate"
    if pad != "do_not_pad" and tokenizer.pad_token_id is None:
        raise ValueError(
            f"padding needs a pad token, and {no_pad_token(tokenizer)}: set tokenizer.pad_token = tokenizer.eos_token, or add "
            "one with tokenizer.add_special_tokens({'pad_token': '<pad>'})"
        )
    if pad != "do_not_pad" and cut != "do_not_truncate" and max_length and max_length % (pad_to_multiple_of or 1):
        raise ValueError(f"max_length {max_length} is no multiple of pad_to_multiple_of {pad_to_multiple_of}")
    return pad, cut, max_length


def no_pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    token = tokenizer.pad_token
    return "this tokenizer has none" if token is None else f"its {token!r} is not in the vocabulary"


def check_truncation(options: Options, special: int) -> None:
    """ValueError: nothing of a text would be left, or parts that overlap would not go forward. `special` tokens are added."""
    if options.truncation == "do_not_truncate" or options.max_length is None:
        return
    room = options.max_length - special
    if room < 0 or options.max_length < 0:
        raise ValueError(f"max_length is {options.max_length}, and the special tokens alone are {special}")
    if options.stride and options.stride >= room:
        raise ValueError(
            f"stride is {options.stride}, and max_length {options.max_length} leaves {room} tokens beside the {special} special "
            "ones: the stride has to be smaller"
        )


def padded(values: dict[str, list[Any]], length: int, side: str, fill: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of one text, filled up to a length at a side, each with its own value."""
    missing = length - len(values["input_ids"])
    if missing <= 0:
        return values
    longer = {}
    for name, row in values.items():
        more = [fill[name]] * missing if name in fill else []
        longer[name] = more + row if side == "left" else row + more
    return longer
