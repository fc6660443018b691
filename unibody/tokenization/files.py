"""The files of a tokenizer: how they are found and read, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken

from unibody.core.hub import read_json
from unibody.core.saving import write_atomically, write_json
from unibody.dynamic_modules import ship_module
from unibody.hub import locate
from unibody.model_card import model_card
from unibody.publishing import PushToHubMixin
from unibody.tokenization.special_tokens import ROLES, as_added_token, token_fields
from unibody.tokenization.vocabulary import Vocabulary

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"
OF_THE_FILE = (
    "tokenizer_class",
    "auto_map",
    "unibody_auto_map",
    "added_tokens_decoder",
    "chat_template",
    "name_or_path",
)
NOT_KEPT = ("backend", "is_local", "local_files_only", "tokenizer_file", "special_tokens_map_file")


class FilesMixin(PushToHubMixin, Vocabulary):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of tokenizers."""

    init_kwargs: dict[str, Any]
    name_or_path: str
    chat_template: str | dict[str, str] | None
    _auto_class: str | None = None  # of a user's own class, whose code goes with what is saved

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *inputs: Any, **options: Any
    ) -> Self:
        """The tokenizer of a folder, or of a repository of the Hub.

        `revision`, `token`, `subfolder`, `cache_dir`, `local_files_only` and `force_download` are for the Hub; the others go before
        the settings of tokenizer_config.json. OSError: a file is missing, or there is no such repository.
        """
        for unused in ("trust_remote_code", "code_revision", "use_fast"):
            options.pop(unused, None)
        folder = locate(pretrained_model_name_or_path, options, weights=False)
        settings = read_settings(folder)
        files = cls.find_files(folder)
        tokenizer = cls(*inputs, **{**settings, **files, **options})
        tokenizer.name_or_path = str(pretrained_model_name_or_path)
        return tokenizer

    @classmethod
    def find_files(cls, folder: Path) -> dict[str, str]:
        """The paths of the vocabulary's files that there are, by the names of the constructor's arguments."""
        names: Mapping[str, str] = getattr(cls, "vocab_files_names", {})
        found = {name: folder / file for name, file in names.items() if (folder / file).is_file()}
        if names and not found:
            raise FileNotFoundError(
                f"{folder} has no {' or '.join(names.values())}, which {cls.__name__} reads: fetch it again"
            )
        return {name: str(file) for name, file in found.items()}

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> tuple[str, ...]:
        """Writes all files of the tokenizer, each whole or not at all; their paths.

        `legacy_format` of a fast tokenizer: True writes the vocabulary's own files (such as vocab.txt) only, False tokenizer.json
        only; by default both, where it has both. With `push_to_hub` the options are those of `push_to_hub`, `repo_id` among them.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise NotADirectoryError(f"{folder} is a file: name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        values = self._settings_to_write()
        if self._auto_class:
            module, values["tokenizer_class"] = ship_module(type(self), folder), type(self).__name__
            pair = [f"{module}.{type(self).__name__}", None]
            values["unibody_auto_map"] = {self._auto_class: pair[::-1] if getattr(self, "is_fast", False) else pair}
        written = [folder / f"{prefix}{CONFIG}", folder / f"{prefix}{SPECIAL}", *self._save_templates(folder, prefix)]
        write_json(written[0], values)
        write_json(written[1], {name: written_token(token) for name, token in self._every_special().items()})
        more = {token: number for token, number in self.get_added_vocab().items() if number >= self.vocab_size}
        if more and legacy_format is not False:
            written.append(folder / f"{prefix}{ADDED}")
            write_json(written[-1], dict(sorted(more.items(), key=lambda item: item[1])))
        written += map(Path, self._save_vocabulary_files(folder, filename_prefix, legacy_format))
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", folder.resolve().name), **options)
        return tuple(map(str, written))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes the vocabulary's own files, without added tokens; their paths."""
        raise NotImplementedError(f"{type(self).__name__} does not write its vocabulary (save_vocabulary)")

    def _save_vocabulary_files(self, folder: Path, prefix: str | None, legacy_format: bool | None) -> tuple[str, ...]:
        return self.save_vocabulary(str(folder), prefix)

    def _settings_to_write(self) -> dict[str, Any]:
        """What tokenizer_config.json says: the settings as they are now, and those that are not known here."""
        kept = {key: value for key, value in self.init_kwargs.items() if key not in (*OF_THE_FILE, *NOT_KEPT)}
        now = (
            "model_max_length",
            "clean_up_tokenization_spaces",
            "padding_side",
            "truncation_side",
            "model_input_names",
        )
        always = ("model_max_length", "clean_up_tokenization_spaces")
        values = {name: getattr(self, name) for name in now}
        kept |= {
            name: value
            for name, value in values.items()
            if name in kept or name in always or value != getattr(type(self), name)
        }
        kept.pop("extra_special_tokens", None)
        named = {name: str(token) for name, token in self._special_tokens.items() if name not in ROLES}
        kept |= {name: text for name, text in self.special_tokens_map.items() if name not in named}
        kept |= {"extra_special_tokens": named} if named else {}
        decoder = {str(number): token_fields(token) for number, token in sorted(self.added_tokens_decoder.items())}
        name = type(self).__name__
        return {
            **{key: plain(value) for key, value in sorted(kept.items()) if value is not None},
            "added_tokens_decoder": decoder,
            "tokenizer_class": name if name == "PreTrainedTokenizerFast" else name.removesuffix("Fast"),
        }

    def _every_special(self) -> dict[str, Any]:
        extra = {"additional_special_tokens": self._extra_special_tokens} if self._extra_special_tokens else {}
        return {**self._special_tokens, **extra}

    def _save_templates(self, folder: Path, prefix: str) -> list[Path]:
        """Writes the chat templates, each to its own file."""
        templates = self.chat_template or {}
        named = {"default": templates} if isinstance(templates, str) else templates
        written = []
        for name, text in named.items():
            file = (
                folder / f"{prefix}{TEMPLATE}" if name == "default" else folder / TEMPLATES / f"{checked(name)}.jinja"
            )
            write_atomically(file, partial(Path.write_text, data=text, encoding="utf-8"))
            written.append(file)
        return written

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoTokenizer") -> None:
        """From now on `save_pretrained` puts the class's module, and those that it imports beside it, next to what it writes."""
        cls._auto_class = auto_class

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        return model_card(
            repo_id, {}, type(self).__name__, getattr(self, "name_or_path", ""), tags, auto="AutoTokenizer"
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a folder's files give a tokenizer's constructor."""
    settings = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    special = read_json(folder / SPECIAL) if (folder / SPECIAL).is_file() else {}
    for name, value in special.items():
        if settings.get(name) is None:
            settings[name] = value
    decoder = settings.get("added_tokens_decoder") or {}
    if not decoder and (folder / ADDED).is_file():
        decoder = {number: {"content": token} for token, number in read_json(folder / ADDED).items()}
        specials = {str(as_added_token(value)) for value in special.values() if isinstance(value, (str, dict))}
        specials |= {str(as_added_token(value)) for value in special.get("additional_special_tokens") or ()}
        decoder = {
            n: {**t, "special": t["content"] in specials, "normalized": t["content"] not in specials}
            for n, t in decoder.items()
        }
    if not all(str(number).isdigit() for number in decoder):
        raise ValueError(f"{folder / CONFIG}: added_tokens_decoder has a key that is no number")
    settings["added_tokens_decoder"] = decoder
    template = read_templates(folder, settings.get("chat_template"))
    if template is not None:
        settings["chat_template"] = template
    return {
        key: value for key, value in settings.items() if key not in ("tokenizer_class", "auto_map", "unibody_auto_map")
    }


def read_templates(folder: Path, stored: Any) -> Any:
    """The chat template, or several by name; those in files of their own go before those in tokenizer_config.json."""
    named: dict[str, str] = {}
    if isinstance(stored, list):
        named = {str(entry["name"]): str(entry["template"]) for entry in stored}
    elif stored is not None:
        named = dict(stored) if isinstance(stored, dict) else {"default": str(stored)}
    files = {file.stem: file for file in sorted((folder / TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE).is_file():
        files["default"] = folder / TEMPLATE
    named |= {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    if not named:
        return None
    return named["default"] if list(named) == ["default"] else named


def written_token(token: Any) -> Any:
    """A special token as files have it: its text, or all of it where it strips spaces or the like."""
    if isinstance(token, list):
        return [written_token(one) for one in token]
    fields = token_fields(token)
    return (
        token.content
        if not any(fields[flag] for flag in ("lstrip", "rstrip", "single_word", "normalized"))
        else fields
    )


def plain(value: Any) -> Any:
    if isinstance(value, AddedToken):
        return written_token(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def checked(name: str) -> str:
    """A template's name as the name of a file."""
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
        raise ValueError(f"a chat template cannot be called {name!r}: letters, digits, '-', '_' and '.'")
    return name


def save_each(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Writes texts to files of a folder; their paths."""
    for name, text in files.items():
        write_atomically(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return tuple(str(folder / name) for name in files)
