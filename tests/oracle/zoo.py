"""The zoo: which tiny configurations and classes the generated models are proved on.

`zoo.json` holds per model type one configuration, the classes that it is tested with (each with what it adds to the
configuration), the keys that its config.json carries, and variants: configurations that differ in the named keys,
tested with the `variant_classes`. A new model is covered by adding its entry.
"""

from __future__ import annotations

import functools
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibody.generated.registry import MODELS

ZOO: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "zoo.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Case:
    """One class of one tiny configuration."""

    entry: str
    model_type: str
    class_name: str

    def __str__(self) -> str:
        return self.class_name if self.entry == self.model_type else f"{self.entry}-{self.class_name}"

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments of the configuration."""
        entry = ZOO[self.model_type]
        return {**entry["config"], **entry["variants"].get(self.entry, {}), **entry["classes"][self.class_name]}

    @property
    def config_keys(self) -> list[str]:
        """Keys that config.json carries."""
        labels = ["id2label", "label2id"] if "num_labels" in self.config else []
        return [*ZOO[self.model_type]["config_keys"], *labels]

    @property
    def auto_class(self) -> str | None:
        """Name of the auto class that stands for this class, None where the registry does not list it."""
        classes = MODELS.get(self.model_type, {"classes": {}})["classes"]
        return next((auto for auto, name in classes.items() if name == self.class_name), None)

    @property
    def module(self) -> Any:
        """The generated module."""
        return importlib.import_module(f"unibody.generated.models.{MODELS[self.model_type]['module']}")

    @property
    def config_class(self) -> Any:
        """The generated configuration class."""
        return getattr(self.module, MODELS[self.model_type]["config"])

    @property
    def model_class(self) -> Any:
        """The generated model class."""
        return getattr(self.module, self.class_name)


@functools.cache
def cases(auto_class: str | None = None) -> tuple[Case, ...]:
    """Every case of the zoo, in its order; with `auto_class` only those of that auto class."""
    every = []
    for model_type, entry in ZOO.items():
        every += [Case(model_type, model_type, name) for name in entry["classes"]]
        every += [
            Case(variant, model_type, name) for variant in entry["variants"] for name in entry["variant_classes"]
        ]
    return tuple(case for case in every if auto_class in (None, case.auto_class))


def first_case(auto_class: str = "AutoModelForCausalLM") -> Case:
    """The zoo's first case of that auto class, for tests of what does not depend on the model."""
    return cases(auto_class)[0]


def generated_files() -> list[Path]:
    """Path of every generated model file that the registry lists."""
    names = sorted({entry["module"] for entry in MODELS.values()})
    return [Path(str(importlib.import_module(f"unibody.generated.models.{name}").__file__)) for name in names]
