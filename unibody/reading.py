"""Reading the JSON of checkpoints, which may come from anyone: bounded in size and in depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unibody.core.hub import read_json

LARGEST = {"a configuration": 10_000_000, "an index": 200_000_000}  # bytes; far above any that is meant well
DEEPEST = 100


def read_bounded_json(file: Path) -> dict[str, Any]:
    """The keys and values of a config.json or of an index. ValueError: they are out of all bounds, or no JSON."""
    what = "an index" if file.name.endswith(".index.json") else "a configuration"
    if file.is_file() and (size := file.stat().st_size) > LARGEST[what]:
        raise ValueError(f"{file} has {size:,} bytes, and {what} at most {LARGEST[what]:,}: it is none")
    values = read_json(file)
    if is_deeper(values, DEEPEST):
        raise ValueError(f"{file} is nested too deeply for {what}: at most {DEEPEST} levels are read")
    return values


def is_deeper(values: Any, levels: int) -> bool:
    """Whether objects and lists are nested in more levels than these."""
    level = [values]
    for _ in range(levels):
        level = [
            entry for node in level for entry in (node.values() if isinstance(node, dict) else node)
            if isinstance(entry, (dict, list))
        ]  # fmt: skip
    return bool(level)
