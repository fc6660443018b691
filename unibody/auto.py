"""Auto classes: the class that reads a checkpoint, found by the `model_type` in its config.json."""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import unibody
from unibody.core.hub import read_json
from unibody.generated.registry import MODELS


class AutoClass:
    """Finds, for a model type, the class that the registry lists under the auto class's own name."""

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], **options: Any) -> Any:
        """What the found class reads from the checkpoint; the options are those of its own `from_pretrained`."""
        from unibody.models import locate

        folder = locate(folder_or_id, options, weights=cls.__name__ != "AutoConfig")
        file = folder / "config.json"
        found = cls._find(read_json(file).get("model_type"), file).from_pretrained(folder, **options)
        model = found[0] if isinstance(found, tuple) else found
        if hasattr(model, "name_or_path"):
            model.name_or_path = str(folder_or_id)
        return found

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
