"""DeepSpeed's configuration as a tree that is looked up by dotted keys, and which of them holds for this process."""

from __future__ import annotations

import base64
import copy
import json
import os
import weakref
from pathlib import Path
from typing import Any

from unibody.integrations.availability import is_available, require

ELSEWHERE = ("cpu", "nvme")  # where weights or the optimizer may be offloaded to


class HfDeepSpeedConfig:
    """A configuration from a file, a dictionary, or base64 of its JSON; while this object lives, models are loaded as it says.

    So it is made before the model, and kept. A dictionary is copied. ValueError: it is none of these, or not a JSON object.
    MissingPackageError: deepspeed is not installed.
    """

    def __init__(self, config_file_or_dict: str | os.PathLike[str] | dict[str, Any]) -> None:
        require("deepspeed", "DeepSpeed's configuration")
        self.config: dict[str, Any] = read_config(config_file_or_dict)
        set_hf_deepspeed_config(self)

    def find_config_node(self, ds_key_long: str) -> tuple[dict[str, Any] | None, str]:
        """The object that holds the last part of a dotted key, None if there is no such object, and that part."""
        *parents, name = ds_key_long.split(".")
        node: Any = self.config
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        return (node if isinstance(node, dict) else None), name

    def get_value(self, ds_key_long: str, default: Any = None) -> Any:
        """What a dotted key holds, or the default."""
        node, name = self.find_config_node(ds_key_long)
        return default if node is None else node.get(name, default)

    def del_config_sub_tree(self, ds_key_long: str, must_exist: bool = False) -> None:
        """Removes what a dotted key holds. ValueError: nothing is there, and `must_exist`."""
        node, name = self.find_config_node(ds_key_long)
        if node is not None and name in node:
            del node[name]
        elif must_exist:
            raise ValueError(f"the DeepSpeed configuration has no {ds_key_long}: it has {', '.join(self.config)}")

    def is_true(self, ds_key_long: str) -> bool:
        """Whether a key is set, and to something true."""
        return bool(self.get_value(ds_key_long))

    def is_false(self, ds_key_long: str) -> bool:
        """Whether a key is set, and to something false."""
        value = self.get_value(ds_key_long)
        return value is not None and not value

    def is_zero2(self) -> bool:
        """Whether gradients and the optimizer are partitioned."""
        return bool(self.get_value("zero_optimization.stage") == 2)

    def is_zero3(self) -> bool:
        """Whether the weights are, too."""
        return bool(self.get_value("zero_optimization.stage") == 3)

    def is_offload(self) -> bool:
        """Whether ZeRO 2 or 3 keeps weights or the optimizer elsewhere than on the accelerator."""
        parts = ("offload_optimizer", "offload_param")
        places = [self.get_value(f"zero_optimization.{part}.device") for part in parts]
        return (self.is_zero2() or self.is_zero3()) and any(place in ELSEWHERE for place in places)


def read_config(source: Any) -> dict[str, Any]:
    """The configuration of a file, of base64, or a copy of a dictionary."""
    if isinstance(source, dict):
        return copy.deepcopy(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a DeepSpeed configuration is a path or a dictionary, not {type(source).__name__}")
    name, found = str(source), None
    if os.path.isfile(name):  # Path.is_file raises for names as long as a text
        try:
            found = json.loads(Path(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name} is not JSON ({error}): correct it") from error
    else:
        try:
            found = json.loads(base64.urlsafe_b64decode(name))
        except ValueError:
            remedy = "name that of a DeepSpeed configuration, or give a dictionary"
            raise ValueError(f"{name} is no file: {remedy}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds a {type(found).__name__}, expected an object of keys and values")
    return found


_current: weakref.ReferenceType[HfDeepSpeedConfig] | None = None


def set_hf_deepspeed_config(hf_deepspeed_config_obj: HfDeepSpeedConfig) -> None:
    """From now on, and while the object lives, its configuration is the one that holds."""
    global _current  # noqa: PLW0603
    _current = weakref.ref(hf_deepspeed_config_obj)


def unset_hf_deepspeed_config() -> None:
    """From now on none holds."""
    global _current  # noqa: PLW0603
    _current = None


def current() -> HfDeepSpeedConfig | None:
    """The object whose configuration holds."""
    return None if _current is None else _current()


def deepspeed_config() -> dict[str, Any] | None:
    """The configuration that holds, None: there is none."""
    found = current()
    return None if found is None else found.config


def is_deepspeed_zero3_enabled() -> bool:
    """Whether a configuration holds that partitions the weights of every model that is loaded."""
    found = current()
    return found is not None and found.is_zero3() and is_available("deepspeed")
