"""Tokenizers that the `tokenizers` library runs; they know where in the text each token stands."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.models import BPE

from unibody.core.saving import write_atomically
from unibody.tokenization.backend import frame, set_prefix_space, trained_anew
from unibody.tokenization.base import PreTrainedTokenizerBase, target_length
from unibody.tokenization.options import Options


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    """A tokenizer of a tokenizer.json, or of a `tokenizers.Tokenizer` (`tokenizer_object`), of which it takes a copy."""

    vocab_files_names: ClassVar[dict[str, str]] = {"tokenizer_file": "tokenizer.json"}
    is_fast = True
    _frame = (False, False)  # whether the tokens that begin and end a text were asked for

    def __init__(
        self, *, tokenizer_object: Tokenizer | None = None, tokenizer_file: str | None = None, **settings: Any
    ) -> None:
        settings = {**self.defaults, **settings}
        if tokenizer_object is not None:
            self._tokenizer = copy.deepcopy(tokenizer_object)
        elif tokenizer_file is not None:
            self._tokenizer = read_backend(Path(tokenizer_file))
        else:
            self._tokenizer = self.build(settings)
        self._lock = Lock()  # the backend's padding and truncation are settings of the whole
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if (prefix := settings.get("add_prefix_space")) is not None:
            set_prefix_space(self._tokenizer, bool(prefix))
        self._tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
        super().__init__(**settings)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *inputs: Any,
        add_bos_token: bool | None = None,
        add_eos_token: bool | None = None,
        **options: Any,
    ) -> Self:
        """As any tokenizer's; `add_bos_token` and `add_eos_token` say what stands around each text.

        None leaves that to tokenizer.json, whatever tokenizer_config.json says; so does a class whose texts stand between a `cls_token`
        and a `sep_token`.
        """
        tokenizer = super().from_pretrained(pretrained_model_name_or_path, *inputs, **options)
        if (add_bos_token, add_eos_token) != (None, None) and "cls_token" not in cls.defaults:
            tokenizer._set_frame(bool(add_bos_token), bool(add_eos_token))
        return tokenizer

    @property
    def add_bos_token(self) -> bool:
        """Whether `bos_token` stands before each text because that was asked for; when set, tokenizer.json's frame is gone."""
        return self._frame[0]

    @add_bos_token.setter
    def add_bos_token(self, wanted: bool) -> None:
        self._set_frame(wanted, self.add_eos_token)

    @property
    def add_eos_token(self) -> bool:
        """The same of `eos_token` behind each text."""
        return self._frame[1]

    @add_eos_token.setter
    def add_eos_token(self, wanted: bool) -> None:
        self._set_frame(self.add_bos_token, wanted)

    def _set_frame(self, bos: bool, eos: bool) -> None:
        """Puts tokens around each text, in the place of whatever stood there. ValueError: the tokenizer lacks one."""
        self._tokenizer.post_processor = frame(
            *(
                self._require_role(name) if wanted else None
                for name, wanted in (("bos_token", bos), ("eos_token", eos))
            )
        )
        self._frame = bos, eos

    def _require_role(self, name: str) -> tuple[str, int]:
        token = getattr(self, name)
        if token is None:
            raise ValueError(f"add_{name}=True: this tokenizer has no {name}; give it one, {name}=…")
        return token, getattr(self, f"{name}_id")

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Tokenizer:
        """The backend, from vocabulary files in `settings`. ValueError: the class knows none, or they are not there."""
        raise ValueError(
            f"{cls.__name__} needs a tokenizer_file (tokenizer.json) or a tokenizer_object; where a checkpoint has only the "
            "model of SentencePiece or tiktoken, save it once with transformers, which writes tokenizer.json"
        )

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` that does the work."""
        return self._tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self._tokenizer.get_added_tokens_decoder()

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        before = len(self)
        for token in tokens:  # one by one, so that their order is that of their numbers
            add = self._tokenizer.add_special_tokens if token.special else self._tokenizer.add_tokens
            add([token])
        return len(self) - before

    def _find_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def _find_token(self, number: int) -> str | None:
        return self._tokenizer.id_to_token(number) if number >= 0 else None

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        return self._tokenizer.num_special_tokens_to_add(pair)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens."""
        decoder = self._tokenizer.decoder
        return decoder.decode(tokens) if decoder is not None else " ".join(tokens)

    def _cleans_up(self) -> bool:
        """Not where tokens hold their spaces, whatever a file says: it would take away spaces that the text had."""
        return self.clean_up_tokenization_spaces and not isinstance(self._tokenizer.model, BPE)

    def _decode(self, ids: list[int], skip_special_tokens: bool, **options: Any) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _encode_batch(
        self, texts: list[Any], pairs: list[Any] | None, options: Options
    ) -> tuple[dict[str, list[Any]], list[Encoding]]:
        inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
        with self._lock:
            if options.truncation != "do_not_truncate" and options.max_length is not None:
                self._tokenizer.enable_truncation(
                    options.max_length,
                    stride=options.stride,
                    strategy=options.truncation,
                    direction=self.truncation_side,
                )
            else:
                self._tokenizer.no_truncation()
            try:
                found = self._tokenizer.encode_batch(
                    inputs, add_special_tokens=options.add_special_tokens, is_pretokenized=options.is_split_into_words
                )
            except Exception as error:
                if "Truncation error" not in str(error):
                    raise
                which = {"only_first": "text", "only_second": "text_pair"}.get(options.truncation, "text")
                raise ValueError(
                    f"max_length {options.max_length} cannot be reached by cutting {which} alone: take truncation=True, or more"
                ) from error
        owners, rows = [], []
        for owner, encoding in enumerate(found):
            parts = [encoding, *(encoding.overflowing if options.return_overflowing_tokens else ())]
            owners += [owner] * len(parts)
            rows += parts
        if options.padding != "do_not_pad":
            self._pad_encodings(rows, options)
        columns = dict(self._columns(rows, options))
        if options.return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = owners
        return columns, rows

    def _pad_encodings(self, rows: list[Encoding], options: Options) -> None:
        aim = target_length(
            [len(row) for row in rows], options.padding, options.max_length, options.pad_to_multiple_of
        )
        for row in rows:
            row.pad(
                aim, direction=options.padding_side, pad_id=self.pad_token_id, pad_type_id=self.pad_token_type_id,
                pad_token=self.pad_token,
            )  # fmt: skip

    def _columns(self, rows: list[Encoding], options: Options) -> Iterator[tuple[str, list[Any]]]:
        yield "input_ids", [row.ids for row in rows]
        if options.return_token_type_ids:
            yield "token_type_ids", [row.type_ids for row in rows]
        if options.return_attention_mask:
            yield "attention_mask", [row.attention_mask for row in rows]
        if options.return_special_tokens_mask:
            yield "special_tokens_mask", [row.special_tokens_mask for row in rows]
        if options.return_offsets_mapping:
            yield "offset_mapping", [row.offsets for row in rows]
        if options.return_length:
            yield "length", [len(row) for row in rows]

    def _save_vocabulary_files(self, folder: Path, prefix: str | None, legacy_format: bool | None) -> tuple[str, ...]:
        own = len(self.vocab_files_names) > 1
        if legacy_format and not own:
            raise ValueError(
                f"{type(self).__name__} has no vocabulary file but tokenizer.json: leave legacy_format out"
            )
        written: tuple[str, ...] = ()
        if not legacy_format:
            file = folder / (f"{prefix}-tokenizer.json" if prefix else "tokenizer.json")
            write_atomically(file, lambda temporary: self._tokenizer.save(str(temporary)))
            written = (str(file),)
        return (*written, *(self.save_vocabulary(str(folder), prefix) if own and legacy_format is not False else ()))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        return tuple(self._tokenizer.model.save(str(save_directory), filename_prefix))

    def train_new_from_iterator(
        self,
        text_iterator: Any,
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Any = None,
        **trainer: Any,
    ) -> Self:
        """A tokenizer of the same kind, whose vocabulary of `vocab_size` tokens is learned from an iterator over batches of texts."""
        special = [*self.added_tokens_decoder.values(), *(new_special_tokens or ())]
        backend = trained_anew(self._tokenizer, text_iterator, vocab_size, length, special, trainer)
        settings = {key: value for key, value in self.init_kwargs.items() if key != "added_tokens_decoder"}
        return type(self)(tokenizer_object=backend, **settings)


def read_backend(file: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. ValueError: it is not one that the installed `tokenizers` reads."""
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist") from error
        from tokenizers import __version__

        raise ValueError(
            f"{file} is no tokenizer.json that tokenizers {__version__} reads ({error}): fetch it again"
        ) from error
