"""The library edition of configurations: read from the Hub, pushed to it, and changed under the ecosystem's names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from unibody.core.hub import read_json
from unibody.core.saving import write_json
from unibody.dynamic_modules import custom_object_save
from unibody.editions import Recognised
from unibody.hub import locate
from unibody.publishing import PushToHubMixin
from unibody.tailoring import SHORTHANDS, changed, take_settings


class PreTrainedConfig(PushToHubMixin, metaclass=Recognised):
    """The base of all configurations of models; those of generated files are instances too."""

    recognised_by = ("model_type", "from_dict", "to_dict", "save_pretrained", "num_labels")
    _auto_class: ClassVar[str | None] = None
    id2label: dict[int, str] | None
    label2id: dict[str, int] | None

    if not TYPE_CHECKING:  # where the fields are those of the file's class

        def __init__(self, **fields: Any) -> None:
            """The fields of the class, and keys of config.json that stand for some, such as `num_labels`."""
            given = {name: fields.pop(name) for name in SHORTHANDS if name in fields}
            super().__init__(**fields)
            if given:
                vars(self).update(vars(changed(self, given)))

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], revision: str | None = None, **options: Any
    ) -> Self:
        """The configuration of a checkpoint; `revision`, `token`, `subfolder` and the like are for the Hub.

        Further options are fields, which get other values than config.json says. TypeError: an option is neither.
        """
        options["revision"] = revision
        folder = locate(folder_or_id, options, weights=False)
        settings = take_settings(cls, cls, options)
        found: Self = super().from_pretrained(folder)  # type: ignore[misc]
        return changed(found, settings) if settings else found

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """The configuration that a file says, whatever its name."""
        found: Self = cls.from_dict(read_json(Path(json_file)))  # type: ignore[attr-defined]
        return found

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """From now on `save_pretrained` puts the class's module, and those that it imports beside it, next to what it writes."""
        cls._auto_class = auto_class

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes config.json, and the code of a class that is registered for that."""
        if vars(type(self)).get("_auto_class"):
            custom_object_save(self, folder, self)
        super().save_pretrained(folder)  # type: ignore[misc]

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds, which is what to_dict gives."""
        values: dict[str, Any] = self.to_dict()  # type: ignore[attr-defined]
        return values

    def to_json_string(self, use_diff: bool = True) -> str:
        """config.json as a text."""
        return json.dumps(self.to_diff_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Writes config.json under any name."""
        write_json(Path(json_file_path), self.to_diff_dict())

    def update(self, config_dict: dict[str, Any]) -> None:
        """Sets attributes."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def get_text_config(self, decoder: bool | None = None) -> Self:
        """The configuration itself: the models read nothing but texts."""
        return self

    @property
    def num_labels(self) -> int:
        """The number of labels; set, they are called LABEL_0, LABEL_1 and so on, unless there are as many already."""
        found: int = super().num_labels  # type: ignore[misc]
        return found

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        if self.id2label is None or len(self.id2label) != number:
            self.id2label = {index: f"LABEL_{index}" for index in range(number)}
            self.label2id = {name: index for index, name in self.id2label.items()}

    @property
    def _attn_implementation(self) -> str:
        """What the ecosystem's code calls `attn_implementation`."""
        return str(self.attn_implementation)

    @_attn_implementation.setter
    def _attn_implementation(self, name: str) -> None:
        self.attn_implementation = name
