"""Tokenizers written in Python: a class says how a text without special tokens is split; the rest is here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizers import AddedToken

from unibody.tokenization.base import PreTrainedTokenizerBase
from unibody.tokenization.options import Options


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """The base of tokenizers that say `vocab_size`, `get_vocab`, `_tokenize`, `_convert_token_to_id`, `_convert_id_to_token`.

    Such a class builds its vocabulary first and calls `super().__init__(**settings)` then; it may say more: `save_vocabulary`,
    `build_inputs_with_special_tokens`, `convert_tokens_to_string`, `prepare_for_tokenization`.
    """

    is_fast: ClassVar[bool] = False

    def __init__(self, **settings: Any) -> None:
        self._added_tokens: dict[int, AddedToken] = {}
        self._added_numbers: dict[str, int] = {}
        self._split_special_tokens = bool(settings.get("split_special_tokens", False))
        super().__init__(**settings)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} does not say how it splits a text (_tokenize)")

    def _convert_token_to_id(self, token: str) -> int | None:
        raise NotImplementedError(f"{type(self).__name__} does not say the number of a token (_convert_token_to_id)")

    def _convert_id_to_token(self, index: int) -> str | None:
        raise NotImplementedError(f"{type(self).__name__} does not say the token of a number (_convert_id_to_token)")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens."""
        return " ".join(tokens)

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, **options: Any
    ) -> tuple[str, Any]:
        """The text as it is to be split, and the options that are left over."""
        return text, options

    def normalize(self, text: str) -> str:
        """The text as tokens that were added with `normalized=True` are looked for in it."""
        return text

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The numbers of a text, or of a pair, with the special tokens that a model expects; here none."""
        return token_ids_0 + (token_ids_1 or [])

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for each token of the text and of what is added before the pair, 1 for those of the pair."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        whole = first if token_ids_1 is None else len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))
        return [0] * first + [1] * (whole - first)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return dict(sorted(self._added_tokens.items()))

    def __len__(self) -> int:
        return max(len(set(self.get_vocab().values())), max(self._added_tokens, default=-1) + 1)

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        vocabulary, added = self.get_vocab(), 0
        for token in tokens:
            number = self._added_numbers.get(token.content, vocabulary.get(token.content))
            if number is None:
                number, added = len(self), added + 1
            self._added_tokens[number] = token
            self._added_numbers[token.content] = number
        self.__dict__.pop("_cached_splitters", None)
        return added

    def _find_id(self, token: str) -> int | None:
        if token in self._added_numbers:
            return self._added_numbers[token]
        number = self._convert_token_to_id(token)
        unknown = self._special_tokens.get("unk_token")
        if unknown is not None and number == self._added_numbers.get(str(unknown)) and token != str(unknown):
            return None  # a class may answer with the number of the unknown token
        return number

    def _find_token(self, number: int) -> str | None:
        added = self._added_tokens.get(number)
        return str(added) if added is not None else self._convert_id_to_token(number)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """The tokens of a text, added ones whole."""
        text, options = self.prepare_for_tokenization(text, **options)
        tokens: list[str] = []
        for piece, is_added in self._split(text):
            tokens += [piece] if is_added else self._tokenize(piece, **options) if piece else []
        tokens += self.tokenize(pair) if pair is not None else []
        return tokens

    def _split(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text cut at the added tokens: first at those that stand as they are, then at those of normalized text."""
        literal, normal = self._splitters()
        for piece, token in literal.split(text):
            if token is not None:
                yield token, True
            elif not normal.tokens:
                yield piece, False
            else:
                for inner, found in normal.split(self.normalize(piece)):
                    yield (inner, False) if found is None else (found, True)

    def _splitters(self) -> tuple[Splitter, Splitter]:
        if "_cached_splitters" not in self.__dict__:
            split = self._split_special_tokens
            tokens = [token for token in self._added_tokens.values() if not (split and token.special)]
            literal = [token for token in tokens if not token.normalized]
            normal = [token for token in tokens if token.normalized]
            self._cached_splitters = (
                Splitter(literal, [token.content for token in literal]),
                Splitter(normal, [self.normalize(token.content) for token in normal]),
            )
        return self._cached_splitters

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cached_splitters"}

    def _numbers(self, text: Any, split: bool) -> list[int]:
        options: dict[str, Any] = {"is_split_into_words": True} if split else {}
        tokens = [token for word in (text if split else [text]) for token in self.tokenize(word, **options)]
        return list(map(self._number, tokens))

    def _number(self, token: str) -> int:
        number = self.convert_tokens_to_ids(token)
        if number is None:
            raise ValueError(f"{type(self).__name__} has no number for {token!r}, and no unk_token to stand for it")
        return int(number)

    def _encode_batch(
        self, texts: list[Any], pairs: list[Any] | None, options: Options
    ) -> tuple[dict[str, list[Any]], None]:
        if options.return_offsets_mapping:
            raise ValueError(
                f"offsets need a fast tokenizer, and {type(self).__name__} is written in Python: take AutoTokenizer with use_fast=True"
            )
        rows = [
            self._encode_one(text, pair, options)
            for text, pair in zip(texts, pairs or [None] * len(texts), strict=True)
        ]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns = self._pad_columns(
            columns, options.padding, options.max_length, options.pad_to_multiple_of, options.padding_side
        )
        if options.return_length:
            columns["length"] = [len(row) for row in columns["input_ids"]]
        return columns, None

    def _encode_one(self, text: Any, pair: Any, options: Options) -> dict[str, Any]:
        ids = self._numbers(text, options.is_split_into_words)
        other = None if pair is None else self._numbers(pair, options.is_split_into_words)
        return self.prepare_for_model(ids, other, options)

    def prepare_for_model(self, ids: list[int], pair_ids: list[int] | None, options: Options) -> dict[str, Any]:
        """The row of a text's numbers: cut, with special tokens, and what goes with them."""
        special = self.num_special_tokens_to_add(pair_ids is not None) if options.add_special_tokens else 0
        too_many = len(ids) + len(pair_ids or ()) + special - (options.max_length or 0)
        cut: list[int] = []
        if options.truncation != "do_not_truncate" and options.max_length is not None and too_many > 0:
            ids, pair_ids, cut = self.truncate_sequences(ids, pair_ids, too_many, options.truncation, options.stride)
        row: dict[str, Any] = {}
        if options.return_overflowing_tokens:
            row |= {"overflowing_tokens": cut, "num_truncated_tokens": too_many}
        if options.add_special_tokens:
            row["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids)
            types = self.create_token_type_ids_from_sequences(ids, pair_ids)
            mask = [int(number in set(self.all_special_ids)) for number in row["input_ids"]]
        else:
            row["input_ids"] = ids + (pair_ids or [])
            types, mask = [0] * len(ids) + [1] * len(pair_ids or ()), [0] * len(row["input_ids"])
        if options.return_token_type_ids:
            row["token_type_ids"] = types
        if options.return_special_tokens_mask:
            row["special_tokens_mask"] = mask
        if options.return_attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        return row

    def truncate_sequences(
        self, ids: list[int], pair_ids: list[int] | None, num_tokens_to_remove: int, strategy: str, stride: int = 0
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """The text and its pair without so many tokens, and those that were cut off, after `stride` that stay."""
        pair = list(pair_ids or ())
        if strategy == "longest_first" and pair_ids is not None:
            first, second = len(ids), len(pair)
            for _ in range(num_tokens_to_remove):
                first, second = (first - 1, second) if first > second else (first, second - 1)
            return self._kept(ids, first), self._kept(pair, second), []
        which = ids if strategy != "only_second" else pair
        keep = len(which) - num_tokens_to_remove
        if keep < 0:
            name = "text_pair" if strategy == "only_second" else "text"
            raise ValueError(
                f"{num_tokens_to_remove} tokens are too many, and {name} has {len(which)}: take truncation=True, or a larger max_length"
            )
        window = min(len(which), stride + num_tokens_to_remove)
        cut = which[-window:] if self.truncation_side == "right" else which[:window]
        kept = self._kept(which, keep)
        return (kept, pair_ids, cut) if which is ids else (ids, kept, cut)

    def _kept(self, ids: list[int], length: int) -> list[int]:
        return ids[:length] if self.truncation_side == "right" else ids[len(ids) - length :]

    def _decode(self, ids: list[int], skip_special_tokens: bool, **options: Any) -> str:
        """The text; added tokens stand apart from what is around them unless `spaces_between_special_tokens` is False."""
        tokens = [token for token in self.convert_ids_to_tokens(ids, skip_special_tokens) if token is not None]
        apart = self._added_numbers.keys() - set(self.all_special_tokens)
        pieces: list[str] = []
        run: list[str] = []
        for token in tokens:
            if token in apart:
                pieces += [self.convert_tokens_to_string(run)] * bool(run) + [token]
                run = []
            else:
                run.append(token)
        pieces += [self.convert_tokens_to_string(run)] * bool(run)
        return (" " if options.get("spaces_between_special_tokens", True) else "").join(pieces)


@dataclass
class Splitter:
    """Finds any of some tokens in a text, the longest first, with the spaces that they swallow."""

    tokens: list[AddedToken]
    texts: list[str]  # of each token, as it stands in the text

    def __post_init__(self) -> None:
        order = sorted(range(len(self.tokens)), key=lambda i: -len(self.texts[i]))
        self.tokens = [self.tokens[i] for i in order]
        self.pattern = re.compile("|".join(f"({choice(self.texts[i], self.tokens[n])})" for n, i in enumerate(order)))

    def split(self, text: str) -> Iterator[tuple[str, str | None]]:
        """The pieces of a text: with the token that a piece is, or with None."""
        end = 0
        for match in self.pattern.finditer(text) if self.tokens else ():
            if match.start() > end:
                yield text[end : match.start()], None
            yield match[0], self.tokens[int(match.lastindex or 1) - 1].content
            end = match.end()
        if end < len(text):
            yield text[end:], None


def choice(text: str, token: AddedToken) -> str:
    """The regular expression of a token."""
    before, after = (r"(?<!\w)", r"(?!\w)") if token.single_word else ("", "")
    return (r"\s*" if token.lstrip else "") + before + re.escape(text) + after + (r"\s*" if token.rstrip else "")
