"""Configurations: what a checkpoint's config.json says, as typed fields."""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from unibody.core.hub import locate_checkpoint, read_json
from unibody.core.saving import write_json


@dataclass(kw_only=True, eq=False)
class PreTrainedConfig:
    """What config.json says, as typed fields; keys that no field names are kept as attributes and written back."""

    model_type: ClassVar[str] = ""

    architectures: list[str] | None = None
    dtype: str | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    attn_implementation: str = "sdpa"  # or "eager"; never written

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return build_config(cls, values)

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], revision: str | None = None) -> Self:
        file = locate_checkpoint(folder_or_id, revision) / "config.json"
        return build_config(cls, read_json(file), file)

    def to_dict(self) -> dict[str, Any]:
        """All keys of config.json, except those that every model has and that are None."""
        silent = {f.name for f in dataclasses.fields(PreTrainedConfig) if getattr(self, f.name) is None}
        kept = vars(self).keys() - silent - {"attn_implementation", "base_model_tp_plan", "base_model_ep_plan"}
        return copy.deepcopy({key: getattr(self, key) for key in sorted(kept | {"model_type"})})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        write_json(Path(folder, "config.json"), self.to_dict())

    def __eq__(self, other: object) -> bool:
        return hasattr(other, "to_dict") and bool(self.to_dict() == other.to_dict())

    @property
    def num_labels(self) -> int:
        return 2 if self.id2label is None else len(self.id2label)


def build_config(config_class: Any, values: dict[str, Any], source: Path | str = "config.json") -> Any:
    """A configuration from the keys of a config.json, in their present or their historical spelling."""
    values = copy.deepcopy(values)
    expected, found = config_class.model_type, values.pop("model_type", config_class.model_type)
    if found != expected:
        raise ValueError(f"{source} says model_type {found!r}, but {config_class.__name__} reads {expected!r}")
    if "torch_dtype" in values:
        values.setdefault("dtype", values.pop("torch_dtype"))
    if labels := values.pop("num_labels", 0):
        values.setdefault("id2label", {index: f"LABEL_{index}" for index in range(labels)})
    if names := values.get("id2label"):
        values["id2label"] = {int(index): name for index, name in names.items()}
        values.setdefault("label2id", {name: int(index) for index, name in names.items()})
    rope = {"rope_theta": values.pop("rope_theta")} if "rope_theta" in values else {}
    rope |= (values.pop("rope_scaling", None) or {}) | (values.pop("rope_parameters", None) or {})
    if "type" in rope:
        rope.setdefault("rope_type", rope.pop("type"))
    if rope:
        values["rope_parameters"] = rope
    fields = {field.name for field in dataclasses.fields(config_class) if field.init}
    config = config_class(**{name: values.pop(name) for name in fields & values.keys()})
    vars(config).update(values)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of the folder's config.json, as they are."""
    return read_json(folder / "config.json")
