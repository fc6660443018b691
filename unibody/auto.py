"""Auto classes: the class that reads a checkpoint, found by the `model_type` in its config.json."""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import unibody
from unibody.core.hub import locate_checkpoint, read_json
from unibody.generated.registry import MODELS


class AutoClass:
    """Finds, for a model type, the generated class that the registry lists under the auto class's own name."""

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, revision: str | None = None, **options: Any
    ) -> Any:
        """What the found class reads from the checkpoint; the options are those of its own `from_pretrained`."""
        file = locate_checkpoint(folder_or_id, revision) / "config.json"
        found = cls._find(read_json(file).get("model_type"), file)
        return found.from_pretrained(folder_or_id, revision=revision, **options)

    @classmethod
    def _find(cls, model_type: Any, source: Path | str) -> Any:
        """The generated class for a model type; `source` is what names the type, for the error if there is none."""
        if not isinstance(model_type, str) or model_type not in MODELS:
            known = ", ".join(sorted(MODELS, key=lambda name: (-similarity(name, str(model_type or "")), name)))
            found = "has no model_type" if model_type is None else f"says model_type {model_type!r}"
            raise ValueError(
                f"{source} {found}; generated files read {known}: correct it if it should be one of these; "
                "if not, write modular/models/modular_<name>.py and run `unibody generate`"
            )
        entry = MODELS[model_type]
        classes = {"AutoConfig": entry["config"], **entry["classes"]}
        if cls.__name__ not in classes:
            raise ValueError(
                f"{source} says model_type {model_type!r}, which has no {cls.__name__}: use one of {', '.join(classes)}"
            )
        return getattr(unibody, classes[cls.__name__])


class AutoConfig(AutoClass):
    """The configuration of a checkpoint."""


class AutoModelClass(AutoClass):
    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, quantization_config: Any = None, **options: Any
    ) -> Any:
        """The model; a quantized checkpoint is read by its quantizer, a plain one quantized as `quantization_config` says."""
        from unibody.quantization import find_quantizer

        values = read_json(locate_checkpoint(folder_or_id, options.get("revision")) / "config.json")
        known = (
            isinstance(values.get("model_type"), str) and values["model_type"] in MODELS
        )  # if not, that comes first
        if known and options.get("quantizer") is None:
            options["quantizer"] = find_quantizer(values.get("quantization_config"), quantization_config)
        return super().from_pretrained(folder_or_id, **options)

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """A model with random weights."""
        return cls._find(config.model_type, type(config).__name__)(config)


class AutoModel(AutoModelClass):
    """The model without a head: hidden states."""


class AutoModelForCausalLM(AutoModelClass):
    """The model that predicts the next token."""


class AutoModelForMaskedLM(AutoModelClass):
    """The model that predicts masked words."""


class AutoModelForSequenceClassification(AutoModelClass):
    """The model that labels a text."""


class AutoModelForTokenClassification(AutoModelClass):
    """The model that labels each token."""


class AutoModelForQuestionAnswering(AutoModelClass):
    """The model that marks the answer in a text."""


def similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
