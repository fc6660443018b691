"""What may be given as text: one or a batch, with pairs or without, whole or split into words."""

from __future__ import annotations

from typing import Any

Texts = list[Any]


def read_texts(text: Any, pair: Any, split: bool) -> tuple[Texts, Texts | None, bool]:
    """The texts, their pairs or None, and whether it was a batch; a text is a str, or with `split` a list of words.

    TypeError, ValueError: something else is there, such as bytes or None; the batch is empty; there are not as many pairs.
    """
    batched = is_batch(text, split)
    pairs: Any
    if not batched:
        texts, pairs = [text], None if pair is None else [pair]
    else:
        texts, pairs = list(text), pair
        if not texts:
            raise ValueError("the batch is empty: give at least one text")
        if pairs is None and not split and all(isinstance(row, (list, tuple)) and len(row) == 2 for row in texts):
            texts, pairs = [row[0] for row in texts], [row[1] for row in texts]
        if pairs is not None and (isinstance(pairs, str) or len(pairs) != len(texts)):
            found = "one text" if isinstance(pairs, str) else f"{len(pairs)} pairs"
            raise ValueError(f"a batch of {len(texts)} texts needs as many in text_pair, and there is {found}")
    texts = [check(row, "text", i if batched else None, split) for i, row in enumerate(texts)]
    if pairs is not None:
        pairs = [check(row, "text_pair", i if batched else None, split) for i, row in enumerate(pairs)]
    return texts, pairs, batched


def is_batch(text: Any, split: bool) -> bool:
    """Whether it is several texts."""
    if not isinstance(text, (list, tuple)):
        return False
    return not split or not text or isinstance(text[0], (list, tuple))


def check(text: Any, name: str, row: int | None, split: bool) -> Any:
    """The text, or its words as a list."""
    where = name if row is None else f"{name}[{row}]"
    if split:
        if isinstance(text, str) or not isinstance(text, (list, tuple)):
            raise TypeError(f"{where} is {kind(text)}: with is_split_into_words it has to be a list of words")
        return [check(word, f"{where}, word {i},", None, False) for i, word in enumerate(text)]
    if not isinstance(text, str):
        remedy = "decode it, for example with .decode('utf-8')" if isinstance(text, bytes) else "a text is a str"
        remedy = "for a list of words say is_split_into_words=True" if isinstance(text, (list, tuple)) else remedy
        raise TypeError(f"{where} is {kind(text)}: {remedy}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where} has half of a surrogate pair at position {error.start} ({text[error.start]!r}), which is no character: "
                "decode its source anew, or replace it with text.encode('utf-8', 'replace').decode()"
            ) from error
    return text


def kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
