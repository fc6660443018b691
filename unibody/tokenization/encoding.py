"""What a tokenizer gives: the arrays that a model takes, and where in the text each token stands."""

from __future__ import annotations

from collections import UserDict
from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any, NamedTuple

from tokenizers import Encoding


class CharSpan(NamedTuple):
    """Characters of a text, from `start` to before `end`."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens of a sequence, from `start` to before `end`."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """A dictionary of `input_ids`, `attention_mask` and the like, for one text or for a batch.

    `encodings` of a fast tokenizer say which word and which characters a token comes from; their methods take the number of the
    text in the batch first, which may be left out for a single text.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encoding: Encoding | list[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data or {})
        self.encodings = [encoding] if isinstance(encoding, Encoding) else encoding
        self.n_sequences = n_sequences
        if n_sequences is None and self.encodings:
            self.n_sequences = self.encodings[0].n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    @property
    def is_fast(self) -> bool:
        """Whether a fast tokenizer made it, so that tokens can be found in the text."""
        return self.encodings is not None

    def __getitem__(self, key: Any) -> Any:
        """The values of a name; of a number, the encoding of that text; of a slice, the values of some texts."""
        if isinstance(key, str):
            return self.data[key]
        if isinstance(key, slice):
            return {name: values[key] for name, values in self.data.items()}
        return self._all("their encodings")[key]

    def __getattr__(self, name: str) -> Any:
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"this encoding has no {name!r}; it has {', '.join(data)}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def keys(self) -> KeysView[str]:
        return self.data.keys()

    def values(self) -> ValuesView[Any]:
        return self.data.values()

    def items(self) -> ItemsView[str, Any]:
        return self.data.items()

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a text."""
        return list(self._all("tokens()")[batch_index].tokens)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token whether it is of the text (0), of its pair (1) or a special one (None)."""
        return list(self._all("sequence_ids()")[batch_index].sequence_ids)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token the number of its word in the sequence; None for a special one."""
        return list(self._all("word_ids()")[batch_index].word_ids)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The sequence of a token: 0, 1, or None for a special one."""
        encoding, token = self._at(batch_or_token_index, token_index, "token_to_sequence()")
        return encoding.token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word of a token."""
        encoding, token = self._at(batch_or_token_index, token_index, "token_to_word()")
        return encoding.token_to_word(token)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of a token; None for a special one."""
        encoding, token = self._at(batch_or_token_index, token_index, "token_to_chars()")
        found = encoding.token_to_chars(token)
        if found is None:
            return None
        return CharSpan(*found)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word."""
        encoding, word = self._at(batch_or_word_index, word_index, "word_to_tokens()")
        found = encoding.word_to_tokens(word, sequence_index)
        return TokenSpan(*found) if found is not None else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan:
        """The characters of a word."""
        encoding, word = self._at(batch_or_word_index, word_index, "word_to_chars()")
        start, end = encoding.word_to_chars(word, sequence_index) or (0, 0)
        return CharSpan(start, end)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that holds a character; None where none does, such as between words."""
        encoding, character = self._at(batch_or_char_index, char_index, "char_to_token()")
        return encoding.char_to_token(character, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that holds a character."""
        encoding, character = self._at(batch_or_char_index, char_index, "char_to_word()")
        return encoding.char_to_word(character, sequence_index)

    def _at(self, first: int, second: int | None, what: str) -> tuple[Encoding, int]:
        """The text's encoding and the index in it, of one number (of the only text) or two."""
        batch, index = (0, first) if second is None else (first, second)
        encoding = self._all(what)[batch]
        return encoding, index + len(encoding) if index < 0 else index

    def _all(self, what: str) -> list[Encoding]:
        if self.encodings is None:
            raise ValueError(f"{what} needs a fast tokenizer: only those say where in the text a token stands")
        return self.encodings

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turns lists into tensors of torch ("pt") or arrays of NumPy ("np"), in place. ValueError: rows of unequal length."""
        if tensor_type is None:
            return self
        make, tensors = _maker(str(getattr(tensor_type, "value", tensor_type)))
        for name, values in self.data.items():
            if isinstance(values, tensors):
                continue
            try:
                self.data[name] = make([values] if prepend_batch_axis else values)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{name} makes no tensor, its rows have unequal lengths or are no numbers: "
                    "pass padding=True, or truncation=True with max_length"
                ) from error
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Moves the tensors to a device, in place."""
        for name, values in self.data.items():
            if hasattr(values, "to") and not isinstance(values, BatchEncoding):
                self.data[name] = values.to(device, non_blocking=non_blocking)
        return self


def _maker(tensor_type: str) -> tuple[Any, Any]:
    """The function that makes a tensor of nested lists, and its type."""
    if tensor_type == "pt":
        import torch

        return torch.tensor, torch.Tensor
    if tensor_type == "np":
        import numpy as np

        def array(values: Any) -> Any:
            made = np.array(values)
            if made.dtype.kind not in "biuf":
                raise ValueError(f"an array of {made.dtype}")
            return made

        return array, np.ndarray
    raise ValueError(f"return_tensors is {tensor_type!r}: one of 'pt' (torch) and 'np' (NumPy)")
