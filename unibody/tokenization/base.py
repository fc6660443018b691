"""What all tokenizers do: calls over texts and batches, special tokens, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from unibody import logging
from unibody.tokenization.chat import ChatMixin
from unibody.tokenization.encoding import BatchEncoding
from unibody.tokenization.files import FilesMixin
from unibody.tokenization.inputs import read_texts
from unibody.tokenization.options import UNLIMITED, Options, check_truncation, padded, settle_lengths
from unibody.tokenization.vocabulary import Vocabulary, open_method

logger = logging.get_logger(__name__)


class PreTrainedTokenizerBase(FilesMixin, ChatMixin, Vocabulary):
    """The base of all tokenizers. Settings that it does not know are kept, and written to tokenizer_config.json again."""

    vocab_files_names: ClassVar[dict[str, str]] = {}  # the arguments of the constructor that are files
    model_input_names: list[str] = ["input_ids", "attention_mask"]  # noqa: RUF012  an instance may have its own
    padding_side: str = "right"
    truncation_side: str = "right"
    is_fast: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}  # settings that hold where a checkpoint says nothing

    def __init__(self, **settings: Any) -> None:
        settings = {**self.defaults, **settings}
        self.init_kwargs = {name: value for name, value in settings.items() if name not in self.vocab_files_names}
        self.name_or_path = str(settings.get("name_or_path", ""))
        self.model_max_length = int(settings.get("model_max_length") or UNLIMITED)
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        self.chat_template: str | dict[str, str] | None = settings.get("chat_template")
        for side in ("padding_side", "truncation_side"):
            setattr(self, side, checked_side(settings.get(side) or getattr(self, side), side))
        if settings.get("model_input_names"):
            self.model_input_names = list(settings["model_input_names"])
        self._warned = False
        self.pad_token_type_id = int(settings.get("pad_token_type_id") or 0)
        self._read_special_tokens(settings)

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **options: Any,
    ) -> BatchEncoding:
        """The numbers of a text or of a batch of texts, each with its pair if there is one.

        A batch is a list; with `is_split_into_words` a text is a list of words. `text_target` gives `labels`. `padding` is True
        (to the longest), "max_length" or False, `truncation` True (the longer of a pair first), "only_first", "only_second" or
        False; lengths count special tokens. With `return_overflowing_tokens` a fast tokenizer gives the parts that were cut off,
        `stride` tokens overlapping, as further rows. A text that is longer than the model reads is warned of once, if `verbose`.
        ValueError, TypeError: no text, an empty batch, no pad token, no room.
        """
        if text is None and text_target is None:
            raise ValueError("there is no text: pass `text` or `text_target`")
        if options:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(options))}")
        pad, cut, length = settle_lengths(self, padding, truncation, max_length, pad_to_multiple_of)
        names = self.model_input_names
        settled = Options(
            add_special_tokens, pad, cut, length, stride, is_split_into_words, pad_to_multiple_of,
            checked_side(padding_side or self.padding_side, "padding_side"),
            "token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            "attention_mask" in names if return_attention_mask is None else return_attention_mask,
            return_overflowing_tokens, return_special_tokens_mask, return_offsets_mapping, return_length,
        )  # fmt: skip
        found = None if text is None else self._encode(text, text_pair, settled, return_tensors)
        if found is not None and verbose and cut == "do_not_truncate":
            self._warn_of_length(found["input_ids"])
        if text_target is None:
            assert found is not None
            return found
        labels = self._encode(text_target, text_pair_target, settled, return_tensors)
        if found is None:
            return labels
        found["labels"] = labels["input_ids"]
        return found

    def _encode(self, text: Any, pair: Any, options: Options, tensors: str | None) -> BatchEncoding:
        """One text or a batch, as numbers."""
        texts, pairs, batched = read_texts(text, pair, options.is_split_into_words)
        special = self.num_special_tokens_to_add(pairs is not None) if options.add_special_tokens else 0
        check_truncation(options, special)
        columns, encodings = self._encode_batch(texts, pairs, options)
        if not batched and not (options.return_overflowing_tokens and self.is_fast):
            columns = {
                name: rows[0] if isinstance(rows[0], list) or not self.is_fast else rows
                for name, rows in columns.items()
            }
            return BatchEncoding(columns, encodings, tensors, prepend_batch_axis=True)
        return BatchEncoding(columns, encodings, tensors)

    def _warn_of_length(self, ids: Any) -> None:
        """Says once if a row is longer than the model reads."""
        rows = ids if len(ids) and not isinstance(ids[0], int) else [ids]
        longest = max(map(len, rows))
        if longest > self.model_max_length and not self._warned:
            self._warned = True
            logger.warning(
                "a text has %d tokens, and the model reads %d: pass truncation=True", longest, self.model_max_length
            )

    def _encode_batch(
        self, texts: list[Any], pairs: list[Any] | None, options: Options
    ) -> tuple[dict[str, list[Any]], Any]:
        """The columns of a batch, a list of rows each, and the encodings of a fast tokenizer."""
        raise open_method(self, "_encode_batch")

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **options: Any) -> Any:
        """The `input_ids` of a call."""
        return self(text, text_pair, add_special_tokens=add_special_tokens, **options)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text."""
        raise open_method(self, "tokenize")

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text, or a pair, gets."""
        raise open_method(self, "num_special_tokens_to_add")

    @property
    def max_len_single_sentence(self) -> int:
        """How many tokens of a text the model takes beside the special ones."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """How many tokens of a pair of texts the model takes beside the special ones."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each special token of a row that has them, 0 for the others."""
        if not already_has_special_tokens or token_ids_1 is not None:
            raise ValueError(
                "which tokens would be added is not known: pass a row that has them, already_has_special_tokens=True"
            )
        special = set(self.all_special_ids)
        return [int(number in special) for number in token_ids_0]

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Rows of one length, of a batch or of a list of encodings; what is no input of the model is left as it is."""
        if isinstance(encoded_inputs, Sequence):
            if not encoded_inputs:
                raise ValueError("there is nothing to pad: the list of encodings is empty")
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in encoded_inputs[0]}
        if return_tensors is None:
            return_tensors = tensor_kind(encoded_inputs.get("input_ids"))
        columns = {name: as_lists(values) for name, values in encoded_inputs.items()}
        if "input_ids" not in columns:
            raise ValueError(f"input_ids are what is padded, and there are only {', '.join(columns) or 'no'} columns")
        strategy, _, length = settle_lengths(self, padding, False, max_length, pad_to_multiple_of)
        side = checked_side(padding_side or self.padding_side, "padding_side")
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        batched = bool(columns["input_ids"]) and isinstance(columns["input_ids"][0], list)
        if not batched:
            columns = {name: [values] for name, values in columns.items()}
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        columns = self._pad_columns(columns, strategy, length, pad_to_multiple_of, side)
        if not batched:
            columns = {name: values[0] for name, values in columns.items()}
        return BatchEncoding(columns, tensor_type=return_tensors)

    def _pad_columns(
        self, columns: dict[str, Any], strategy: str, length: int | None, multiple: int | None, side: str
    ) -> dict[str, Any]:
        if strategy == "do_not_pad":
            return columns
        aim = target_length([len(row) for row in columns["input_ids"]], strategy, length, multiple)
        fill = {
            "input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
        }  # fmt: skip
        names = [name for name in columns if name in fill]
        rows = (
            padded(dict(zip(names, row, strict=True)), aim, side, fill)
            for row in zip(*(columns[name] for name in names), strict=True)
        )
        return {**columns, **{name: list(values) for name, values in gather(rows, names).items()}}

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **options: Any,
    ) -> Any:
        """The text of numbers (a list, a tensor); of rows of them, a list of texts."""
        ids = as_lists(token_ids)
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces, **options) for row in ids]
        if wrong := next((number for number in ids if not isinstance(number, int) or number < 0), None):
            raise ValueError(f"{wrong!r} is no number of a token: they are whole and not below 0")
        text = self._decode(ids, skip_special_tokens, **options)
        clean = self._cleans_up() if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean else text

    def _cleans_up(self) -> bool:
        """Whether decoded text is cleaned up where a call does not say so."""
        return self.clean_up_tokenization_spaces

    def _decode(self, ids: list[int], skip_special_tokens: bool, **options: Any) -> str:
        raise open_method(self, "_decode")

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """The texts of rows of numbers."""
        return [self.decode(row, skip_special_tokens, **options) for row in as_lists(sequences)]

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """The text without the spaces that word-by-word decoding leaves before punctuation and in English contractions."""
        for spaced, tight in CLEAN_UP:
            text = text.replace(spaced, tight)
        return text

    def __repr__(self) -> str:
        roles = ", ".join(f"{name}={str(token)!r}" for name, token in self._special_tokens.items())
        limit = self.model_max_length if self.model_max_length < UNLIMITED else "unlimited"
        return f"{type(self).__name__}({self.name_or_path!r}, {len(self)} tokens, model_max_length={limit}, {roles})"


CLEAN_UP = [(f" {mark}", mark) for mark in (".", "?", "!", ",")] + [
    (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
]  # fmt: skip


def checked_side(side: str, name: str) -> str:
    if side not in ("left", "right"):
        raise ValueError(f"{name} is {side!r}: 'left' or 'right'")
    return side


def tensor_kind(values: Any) -> str | None:
    """What `return_tensors` is for values that are tensors, or begin with one."""
    first = values[0] if isinstance(values, (list, tuple)) and values else values
    return {"torch": "pt", "numpy": "np"}.get(type(first).__module__) if hasattr(first, "tolist") else None


def as_lists(values: Any) -> Any:
    """Tensors and arrays as nested lists; lists of them too."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [as_lists(value) for value in values] if isinstance(values, (list, tuple)) else values


def target_length(lengths: list[int], strategy: str, length: int | None, multiple: int | None) -> int:
    """The length that rows are filled up to."""
    aim = max(lengths) if strategy == "longest" else length or 0
    return -(-aim // multiple) * multiple if multiple else aim


def gather(rows: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows as columns."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            columns[name].append(row[name])
    return columns
