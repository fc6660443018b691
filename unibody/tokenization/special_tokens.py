"""The tokens that have a role, such as the one that ends a text: attributes of a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from tokenizers import AddedToken as AddedToken

if TYPE_CHECKING:
    from unibody.tokenization.vocabulary import Vocabulary

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


class SpecialToken:
    """The text of the token with a role; None: there is none. It may be set to a text, an AddedToken or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> SpecialToken: ...
    @overload
    def __get__(self, tokenizer: Vocabulary, owner: type) -> str | None: ...
    def __get__(self, tokenizer: Vocabulary | None, owner: type) -> SpecialToken | str | None:
        if tokenizer is None:
            return self
        found = tokenizer._special_tokens.get(self.name)
        return None if found is None else str(found)

    def __set__(self, tokenizer: Vocabulary, value: str | AddedToken | None) -> None:
        tokenizer._set_special(self.name, value)


class SpecialTokenId:
    """The number of the token with a role; None: there is none, or the vocabulary lacks it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> SpecialTokenId: ...
    @overload
    def __get__(self, tokenizer: Vocabulary, owner: type) -> int | None: ...
    def __get__(self, tokenizer: Vocabulary | None, owner: type) -> SpecialTokenId | int | None:
        if tokenizer is None:
            return self
        token = tokenizer._special_tokens.get(self.name)
        return None if token is None else tokenizer._find_id(str(token))

    def __set__(self, tokenizer: Vocabulary, value: int | None) -> None:
        token = None if value is None else tokenizer.convert_ids_to_tokens(value)
        if value is not None and not isinstance(token, str):
            raise ValueError(
                f"{self.name}_id is {value}, which the vocabulary of {len(tokenizer)} tokens does not have"
            )
        tokenizer._set_special(self.name, token)


def as_added_token(value: Any, name: str = "a special token", special: bool = True) -> AddedToken:
    """The token of a text, or of the dictionary that files have for it. ValueError: it is neither."""
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=special, normalized=not special)
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {flag: bool(value[flag]) for flag in FLAGS if flag in value}
        return AddedToken(value["content"], **{"special": special, "normalized": not special, **flags})
    raise ValueError(f"{name} is {value!r}: expected a text, or an object with its content")


def token_fields(token: AddedToken) -> dict[str, Any]:
    """What files say of a token."""
    return {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}
