"""The options of `unibody quantize`: the parameters of a method's configuration, as a command line writes them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import unibody
from unibody.core.quantization.calibration import NAMED_DATASETS
from unibody.core.quantization.config import has_type
from unibody.generated.registry import QUANTIZERS

WRITTEN_AS = {"True": "true", "False": "false", "None": "null"}  # Python's words, and JSON's


def read_options(method: str, options: Sequence[str]) -> Any:
    """The configuration that `--group-size 64 --desc-act` and the like describe; values are JSON, or else texts.

    A dataset may be the path of a text file, whose paragraphs are the texts.
    """
    fields, hints = config_fields(method)
    values: dict[str, Any] = {}
    rest = list(options)
    while rest:
        option, given, value = rest.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if name not in fields or not option.startswith("--"):
            known = ", ".join(f"--{field.replace('_', '-')}" for field in fields)
            raise ValueError(f"{option} is no option of {method}: there are {known}")
        if not given and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not given and has_type(True, hints[name]):
            value = "true"
        if not value:
            raise ValueError(f"{option} needs a value: {option} VALUE")
        values[name] = read_value(option, value, hints[name])
    if isinstance(dataset := values.get("dataset"), str):
        values["dataset"] = read_dataset(dataset)
    needed = [name for name, field in fields.items() if field.default is field.default_factory]  # both missing
    if lacking := ", ".join(f"--{name.replace('_', '-')}" for name in needed if name not in values):
        raise ValueError(f"{method} needs {lacking}: `unibody quantize {method} --help` lists its options")
    return getattr(unibody, QUANTIZERS[method]["config"])(**values)


def config_fields(method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of a method's configuration and their types, by name. ValueError: it cannot quantize, or there is none."""
    if method not in QUANTIZERS:
        known = ", ".join(name for name, entry in QUANTIZERS.items() if entry["quantizers"])
        raise ValueError(f"method {method!r} is not known: there are {known}")
    config_class = getattr(unibody, QUANTIZERS[method]["config"])
    return {field.name: field for field in dataclasses.fields(config_class)}, get_type_hints(config_class)


def read_value(option: str, text: str, hint: Any) -> Any:
    """The value that a text stands for; a list of texts may be one of them."""
    try:
        value = json.loads(WRITTEN_AS.get(text, text))
    except ValueError as error:
        if text[0] in "[{":
            raise ValueError(f'{option} {text} is not valid JSON ({error}): quote its texts with "') from error
        value = text
    is_entry = isinstance(value, str) and not has_type(value, hint) and has_type([value], hint)
    return [value] if is_entry else value


def read_dataset(name: str) -> Any:
    """The paragraphs of a text file; the name itself, if it is that of a data set."""
    if name in NAMED_DATASETS:
        return name
    if not Path(name).is_file():
        raise ValueError(f"--dataset {name} is no text file, nor one of {', '.join(NAMED_DATASETS)}: name one")
    try:
        texts = re.split(r"\n\s*\n", Path(name).read_text(encoding="utf-8").strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"--dataset {name} is no text in UTF-8 ({error}): convert it") from error
    return [text for text in texts if text]
