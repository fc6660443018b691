"""A tokenizer for tiny checkpoints: 128 tokens, text and bytes survive the round trip."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from oracle.inputs import VOCABULARY

SPECIAL = ("<pad>", "<s>", "</s>")
ACCENTED = "éàü"
"""Characters of two bytes each, which are two tokens each."""


def tiny_tokenizer() -> Tokenizer:
    """One token per printable ASCII character and per byte of `ACCENTED`; pairs of letters fill the rest."""
    byte_of_character = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = "".join(map(chr, range(32, 127))) + ACCENTED
    pieces = {piece for character in characters for piece in byte_of_character.pre_tokenize_str(character)[0][0]}
    pairs = [first + second for first in "bcdfghkl" for second in "aeiou"]
    vocabulary = [*SPECIAL, *sorted(pieces), *pairs][:VOCABULARY]
    merges = [(piece[0], piece[1]) for piece in vocabulary[len(SPECIAL) :] if len(piece) == 2]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=merges))
    tokenizer.pre_tokenizer = byte_of_character
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in SPECIAL])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the zoo's models have {VOCABULARY}")
    return tokenizer
