"""BERT's tokenizers: WordPiece over words that stand apart (1810.04805 section 3, 1609.08144 section 4.1)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from unibody.tokenization.fast import PreTrainedTokenizerFast
from unibody.tokenization.files import save_each
from unibody.tokenization.python import PreTrainedTokenizer

ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
LONGEST_WORD = 100  # characters; a longer word is unknown


class BertTokenizer(PreTrainedTokenizer):
    """WordPiece in Python: words and punctuation apart, each cut into the longest pieces of vocab.txt.

    `do_lower_case` also strips accents unless `strip_accents` says otherwise; `tokenize_chinese_chars` makes a word of each;
    words in `never_split` stay whole.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}
    model_input_names = INPUTS
    defaults: ClassVar[dict[str, Any]] = {**ROLES, "clean_up_tokenization_spaces": True}

    def __init__(
        self,
        vocab_file: str,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        **settings: Any,
    ) -> None:
        self.vocab = read_vocabulary(Path(vocab_file))
        self.ids_to_tokens = {number: token for token, number in self.vocab.items()}
        self.do_lower_case, self.do_basic_tokenize = do_lower_case, do_basic_tokenize
        self.tokenize_chinese_chars, self.strip_accents = tokenize_chinese_chars, strip_accents
        self.never_split = frozenset(never_split or ())
        super().__init__(
            do_lower_case=do_lower_case, do_basic_tokenize=do_basic_tokenize, never_split=never_split and sorted(never_split),
            tokenize_chinese_chars=tokenize_chinese_chars, strip_accents=strip_accents, **settings,
        )  # fmt: skip

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def get_vocab(self) -> dict[str, int]:
        return {**self.vocab, **self._added_numbers}

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.vocab.get(token)

    def _convert_id_to_token(self, index: int) -> str | None:
        return self.ids_to_tokens.get(index)

    def normalize(self, text: str) -> str:
        return text.lower() if self.do_lower_case else text

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        words = self.split_words(text) if self.do_basic_tokenize else text.split()
        return [piece for word in words for piece in ([word] if word in self.never_split else self.word_pieces(word))]

    def split_words(self, text: str) -> list[str]:
        """Words and marks of punctuation, cleaned of control characters, in lower case or not."""
        found: list[str] = []
        for word in unicodedata.normalize("NFC", self.clean(text)).split():
            if word in self.never_split:
                found.append(word)
                continue
            if self.do_lower_case:
                word = word.lower()
            if self.strip_accents or (self.do_lower_case and self.strip_accents is None):
                word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
            found += split_punctuation(word).split()
        return found

    def clean(self, text: str) -> str:
        """The text with plain spaces, without control characters, and with spaces around Chinese characters."""
        kept = []
        for character in text:
            if character in "\0\ufffd" or is_control(character):
                continue
            if is_space(character):
                kept.append(" ")
            else:
                kept.append(
                    f" {character} " if self.tokenize_chinese_chars and is_chinese(ord(character)) else character
                )
        return "".join(kept)

    def word_pieces(self, word: str) -> list[str]:
        """The longest pieces of the vocabulary, from left to right; the unknown token if there is none for some place."""
        unknown = [self.unk_token or "[UNK]"]
        if len(word) > LONGEST_WORD:
            return unknown
        pieces, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            prefix = "##" if start else ""
            end = next((end for end in ends if prefix + word[start:end] in self.vocab), None)
            if end is None:
                return unknown
            pieces.append(prefix + word[start:end])
            start = end
        return pieces

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens).replace(" ##", "").strip()

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`."""
        first, last = self.convert_tokens_to_ids([self.cls_token or "", self.sep_token or ""])
        return [first, *token_ids_0, last, *(() if token_ids_1 is None else (*token_ids_1, last))]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        name = f"{filename_prefix}-vocab.txt" if filename_prefix else "vocab.txt"
        lines = (f"{self.ids_to_tokens[number]}\n" for number in sorted(self.ids_to_tokens))
        return save_each(Path(save_directory), {name: "".join(lines)})


class BertTokenizerFast(PreTrainedTokenizerFast):
    """WordPiece run by the `tokenizers` library, of tokenizer.json or of vocab.txt; the settings are BertTokenizer's."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}
    model_input_names = INPUTS
    defaults: ClassVar[dict[str, Any]] = ROLES

    def __init__(self, vocab_file: str | None = None, tokenizer_file: str | None = None, **settings: Any) -> None:
        super().__init__(tokenizer_file=tokenizer_file, vocab_file=vocab_file, **settings)
        self.adjust_normalizer(settings)

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Tokenizer:
        if not settings.get("vocab_file"):
            return super().build(settings)
        vocabulary = read_vocabulary(Path(settings["vocab_file"]))
        cls_token, sep_token, unknown = (str(settings[role]) for role in ("cls_token", "sep_token", "unk_token"))
        if lacking := [token for token in (cls_token, sep_token, unknown) if token not in vocabulary]:
            raise ValueError(
                f"{settings['vocab_file']} has no {', '.join(lacking)}, which every text needs: name the tokens it has"
            )
        backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=LONGEST_WORD))
        backend.normalizer = normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls_token}:0 $A:0 {sep_token}:0",
            pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
            special_tokens=[(cls_token, vocabulary[cls_token]), (sep_token, vocabulary[sep_token])],
        )
        return backend

    def adjust_normalizer(self, settings: dict[str, Any]) -> None:
        """What the settings say of case, accents and Chinese characters goes before what tokenizer.json says."""
        normalizer = self._tokenizer.normalizer
        if not isinstance(normalizer, normalizers.BertNormalizer):
            return
        names = {
            "do_lower_case": "lowercase",
            "strip_accents": "strip_accents",
            "tokenize_chinese_chars": "handle_chinese_chars",
        }
        for setting, attribute in names.items():
            if setting in settings and getattr(normalizer, attribute) != settings[setting]:
                setattr(normalizer, attribute, settings[setting])
        self._tokenizer.normalizer = normalizer


def read_vocabulary(file: Path) -> dict[str, int]:
    """The tokens of a vocab.txt, one a line, by their numbers."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: it is a text file with a token on each line")
    text = file.read_text(encoding="utf-8")
    return {token: number for number, token in enumerate(text.removesuffix("\n").split("\n"))}


def is_space(character: str) -> bool:
    return character in " \t\n\r" or unicodedata.category(character) == "Zs"


def is_control(character: str) -> bool:
    return character not in "\t\n\r" and unicodedata.category(character)[0] == "C"


def is_chinese(code: int) -> bool:
    """Whether a character is of a block of CJK ideographs, which are words without spaces between them."""
    return any(first <= code <= last for first, last in IDEOGRAPHS)


IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def split_punctuation(word: str) -> str:
    """The word with spaces around each mark of punctuation; the symbols of ASCII count as such too."""
    return "".join(f" {c} " if is_punctuation(c) else c for c in word)


def is_punctuation(character: str) -> bool:
    code = ord(character)
    ascii_symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_symbol or unicodedata.category(character)[0] == "P"
