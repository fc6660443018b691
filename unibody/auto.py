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
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        **options: Any,
    ) -> Any:
        """What the found class reads from the checkpoint; the options are those of its own `from_pretrained`.

        A checkpoint may bring the code of its class. That runs with `trust_remote_code=True` only, at `code_revision` or else at
        the revision of the checkpoint; without it a class of the registry is taken, or UntrustedCodeError is raised.
        """
        from unibody.hub import HUB_OPTIONS, commit_of, locate

        hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        folder = locate(folder_or_id, dict(hub), weights=False)
        values, commit = read_json(folder / "config.json"), commit_of(str(folder))
        if commit:  # what is fetched from now on is of the same one
            hub["revision"] = commit
        found = cls._find_remote(values, folder_or_id, folder, trust_remote_code, code_revision, hub)
        found = found or cls._find(values.get("model_type"), folder / "config.json")
        if cls.__name__ != "AutoConfig":
            folder = locate(folder_or_id, hub)
        made = found.from_pretrained(folder, **options)
        model = made[0] if isinstance(made, tuple) else made
        if hasattr(model, "name_or_path"):
            model.name_or_path = str(folder_or_id)
        return made

    @classmethod
    def _find_remote(
        cls,
        values: dict[str, Any],
        source: str | os.PathLike[str],
        folder: Path,
        trust: bool | None,
        code_revision: str | None,
        hub: dict[str, Any],
    ) -> Any:
        """The class whose code comes with the checkpoint, if it is to be taken."""
        from unibody.dynamic_modules import (
            find_reference,
            get_class_from_dynamic_module,
            resolve_trust_remote_code,
        )

        reference = find_reference(values, cls.__name__)
        known = isinstance(values.get("model_type"), str) and values["model_type"] in MODELS
        classes = MODELS[values["model_type"]]["classes"] if known else {}
        has_local = known and (cls.__name__ == "AutoConfig" or cls.__name__ in classes)
        where = f"{reference} at {hub.get('revision') or folder}" if reference else ""
        if not resolve_trust_remote_code(trust, str(source), has_local, reference is not None, where):
            return None
        options = {name: value for name, value in hub.items() if name != "subfolder"}
        return get_class_from_dynamic_module(str(reference), source, code_revision=code_revision, **options)

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
