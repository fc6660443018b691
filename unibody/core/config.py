"""Configurations: what a checkpoint's config.json says, as typed fields."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from unibody.core.hub import locate_checkpoint
from unibody.core.saving import write_atomically


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

    def __post_init__(self) -> None:
        self.dtype = self.dtype and str(self.dtype).removeprefix("torch.")
        if self.id2label is not None:
            self.id2label = {int(index): label for index, label in self.id2label.items()}
            self.label2id = self.label2id or {label: index for index, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        return 2 if self.id2label is None else len(self.id2label)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return build_config(cls, values)

    @classmethod
    def from_pretrained(cls, folder_or_id: str | os.PathLike[str], revision: str | None = None) -> Self:
        return build_config(cls, read_config(locate_checkpoint(folder_or_id, revision)))

    def to_dict(self) -> dict[str, Any]:
        """Every field except those that are None by default and still are, and every kept key."""
        unset = {"attn_implementation"} | {f.name for f in dataclasses.fields(self) if f.default is None}
        values = {
            k: v for k, v in vars(self).items() if k not in unset or (v is not None and k != "attn_implementation")
        }
        return {**values, "model_type": self.model_type}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        write_atomically(Path(folder, "config.json"), lambda path: path.write_text(text, encoding="utf-8"))

    def __eq__(self, other: object) -> bool:
        return hasattr(other, "to_dict") and bool(self.to_dict() == other.to_dict())


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of the folder's config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: a checkpoint is a folder with config.json and *.safetensors")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}): fetch it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}, expected an object of keys and values")
    return values


def build_config(config_class: Any, values: dict[str, Any]) -> Any:
    """A configuration from the keys of a config.json, in their present or their historical spelling."""
    values = dict(values)
    found = values.pop("model_type", config_class.model_type)
    if found != config_class.model_type:
        raise ValueError(
            f"config.json says model_type {found!r}, but {config_class.__name__} reads {config_class.model_type!r}: "
            "use the class of that model type"
        )
    if "torch_dtype" in values:
        values.setdefault("dtype", values.pop("torch_dtype"))
    if values.get("id2label") is None and (labels := values.pop("num_labels", None)) is not None:
        values["id2label"] = {index: f"LABEL_{index}" for index in range(labels)}
    rope = {"rope_theta": values.pop("rope_theta")} if "rope_theta" in values else {}
    rope |= (values.pop("rope_scaling", None) or {}) | (values.get("rope_parameters") or {})
    if "type" in rope:
        rope.setdefault("rope_type", rope.pop("type"))
    if rope:
        values["rope_parameters"] = rope
    names = {field.name for field in dataclasses.fields(config_class)}
    config = config_class(**{key: value for key, value in values.items() if key in names})
    for key in values.keys() - names - {"num_labels"}:
        setattr(config, key, values[key])
    return config
