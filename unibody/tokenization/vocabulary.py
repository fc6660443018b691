"""The tokens of a tokenizer: their numbers, those that were added, those that have a role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken

from unibody.tokenization.special_tokens import ROLES, SpecialToken, SpecialTokenId, as_added_token


class Vocabulary:
    """Tokens and their numbers; a tokenizer says where they are (`_find_id`, `_find_token`, `_add_tokens`)."""

    _special_tokens: dict[str, AddedToken]  # by role
    _extra_special_tokens: list[AddedToken]  # without one

    bos_token, eos_token, unk_token, sep_token = SpecialToken(), SpecialToken(), SpecialToken(), SpecialToken()
    pad_token, cls_token, mask_token = SpecialToken(), SpecialToken(), SpecialToken()
    bos_token_id, eos_token_id = SpecialTokenId(), SpecialTokenId()
    unk_token_id, sep_token_id = SpecialTokenId(), SpecialTokenId()
    pad_token_id, cls_token_id, mask_token_id = SpecialTokenId(), SpecialTokenId(), SpecialTokenId()

    def _read_special_tokens(self, settings: Mapping[str, Any]) -> None:
        """Takes the special tokens that a checkpoint names; adds those that its vocabulary lacks, in the order of their numbers."""
        decoder = settings.get("added_tokens_decoder") or {}
        listed = [as_added_token(decoder[key], "added_tokens_decoder", False) for key in sorted(decoder, key=int)]
        whole = {token.content: token for token in listed if token.special}  # elsewhere there is often only the text
        more = settings.get("extra_special_tokens") or {}
        named = more if isinstance(more, Mapping) else {}
        extra = [*(settings.get("additional_special_tokens") or ()), *(() if named else more)]
        roles = {**{role: settings.get(role) for role in ROLES}, **named}
        self._special_tokens = {
            name: whole.get(str(token), token)
            for name, token in (
                (name, as_added_token(value, name)) for name, value in roles.items() if value is not None
            )
        }
        given = (as_added_token(value, "additional_special_tokens") for value in extra)
        self._extra_special_tokens = [whole.get(str(token), token) for token in given]
        special = [*self._special_tokens.values(), *self._extra_special_tokens]
        known = self.added_tokens_encoder
        self._add_tokens([token for token in listed if token.content not in known])
        self._add_tokens([token for token in special if token.content not in known and token.content not in whole])

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without those that were added."""
        raise open_method(self, "vocab_size")

    def get_vocab(self) -> dict[str, int]:
        """The numbers of all tokens, added ones included."""
        raise open_method(self, "get_vocab")

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are found before the text is split, by their numbers."""
        raise open_method(self, "added_tokens_decoder")

    def _add_tokens(self, tokens: list[AddedToken]) -> int:
        raise open_method(self, "_add_tokens")

    def _find_id(self, token: str) -> int | None:
        """The number of a token; None: there is no such token."""
        raise open_method(self, "_find_id")

    def _find_token(self, number: int) -> str | None:
        """The token of a number; None: there is no such number."""
        raise open_method(self, "_find_token")

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The numbers of the added tokens."""
        return {token.content: number for number, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """The numbers of the added tokens."""
        return self.added_tokens_encoder

    def __len__(self) -> int:
        """The number of tokens, added ones included."""
        return len(self.get_vocab())

    def __bool__(self) -> bool:
        return True  # also where there is no token

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """The texts of the tokens that have a role."""
        found: dict[str, Any] = {name: str(token) for name, token in self._special_tokens.items()}
        if self._extra_special_tokens:
            found["additional_special_tokens"] = self.additional_special_tokens
        return found

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role."""
        return [str(token) for token in self._extra_special_tokens]

    @property
    def all_special_tokens(self) -> list[str]:
        """All special tokens, each once."""
        every = [*self._special_tokens.values(), *self._extra_special_tokens]
        return list(dict.fromkeys(map(str, every)))

    @property
    def all_special_ids(self) -> list[int]:
        """Their numbers."""
        found = (self._find_id(token) for token in self.all_special_tokens)
        return [number for number in found if number is not None]

    def _skipped_ids(self) -> set[int]:
        """The numbers that `skip_special_tokens` leaves out: of special tokens, with a role or without."""
        added = self.added_tokens_decoder.items()
        return {*self.all_special_ids, *(number for number, token in added if token.special)}

    def _set_special(self, name: str, value: Any) -> None:
        if value is None:
            self._special_tokens.pop(name, None)
        else:
            self._special_tokens[name] = as_added_token(value, name)

    def __getattr__(self, name: str) -> Any:
        """The named special tokens of a checkpoint (`extra_special_tokens`), such as `image_token`, and `image_token_id`."""
        tokens = self.__dict__.get("_special_tokens", {})
        if name in tokens:
            return str(tokens[name])
        if name.endswith("_id") and name.removesuffix("_id") in tokens:
            return self._find_id(str(tokens[name.removesuffix("_id")]))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Adds tokens, texts or AddedToken, that are found before the text is split; how many were new."""
        given = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        return self._add_tokens([as_added_token(token, "a new token", special_tokens) for token in given])

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Gives roles to tokens, such as `{"pad_token": "<pad>"}`, and adds those that are new; how many were."""
        added = 0
        extra = ("additional_special_tokens", "extra_special_tokens")
        for name, value in sorted(special_tokens_dict.items(), key=lambda item: item[0] in extra):
            if name in extra:
                tokens = [as_added_token(token, name) for token in value]
                kept = [] if replace_additional_special_tokens else self._extra_special_tokens
                have = {str(token) for token in kept}
                self._extra_special_tokens = [*kept, *(token for token in tokens if str(token) not in have)]
            elif name in ROLES:
                tokens = [as_added_token(value, name)]
                self._special_tokens[name] = tokens[0]
            else:
                raise ValueError(
                    f"{name!r} is no role of a special token: one of {', '.join(ROLES)}, additional_special_tokens"
                )
            added += self._add_tokens(tokens)
        return added

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The number of a token, or of each of several; of an unknown one that of `unk_token`, or None."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = self._find_id(tokens)
        return self.unk_token_id if found is None else found

    def convert_ids_to_tokens(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> Any:
        """The token of a number, or of each of several; None where there is none."""
        if isinstance(ids, int):
            return self._find_token(ids)
        special = self._skipped_ids() if skip_special_tokens else ()
        return [self._find_token(int(number)) for number in ids if int(number) not in special]


def open_method(tokenizer: Any, name: str) -> NotImplementedError:
    """The error for what a class has left open."""
    kind = type(tokenizer).__name__
    return NotImplementedError(
        f"{kind} does not define {name}: PreTrainedTokenizer and PreTrainedTokenizerFast say what a class of one's own needs"
    )
