"""Names of models: the table of cased names, lower and cased forms, what a name makes of a class name."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

TYPES = (
    "modeling",
    "configuration",
    "tokenization",
    "processing",
    "image_processing_pil",
    "image_processing",
    "video_processing",
    "feature_extraction",
)
SUFFIXES = {
    "Config": "configuration",
    "Tokenizer": "tokenization",
    "Processor": "processing",
    "ProcessorKwargs": "processing",
    "ImagesKwargs": "processing",
    "VideosKwargs": "processing",
    "TextKwargs": "processing",
    "ImageProcessor": "image_processing",
    "ImageProcessorKwargs": "image_processing",
    "ImageProcessorPil": "image_processing_pil",
    "ImageProcessorPilKwargs": "image_processing_pil",
    "VideoProcessor": "video_processing",
    "VideoProcessorInitKwargs": "video_processing",
    "VideoProcessorKwargs": "video_processing",
    "FeatureExtractor": "feature_extraction",
}
_LONGEST_FIRST = sorted(SUFFIXES.items(), key=lambda item: -len(item[0]))


class Names:
    """The two directions between `qwen2_vl` and `Qwen2VL`, by the project's table where it has an entry."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self.table = dict(table)
        self._lower = {config: model for model, config in self.table.items()}

    def cased(self, lower: str) -> str:
        """`Qwen2VL` for `qwen2_vl`: the table's configuration class less "Config", else each piece capitalised."""
        config = self.table.get(lower) or self.table.get(lower.replace("_", "-"))
        if config is not None:
            return config.replace("Config", "")
        return "".join(piece.title() for piece in lower.split("_"))

    def lower(self, cased: str) -> str:
        """`qwen2_vl` for `Qwen2VL`: the table's key, else the pieces that begin with capitals, joined."""
        model = self._lower.get(f"{cased}Config")
        if model is not None:
            return model.replace("-", "_")
        return "_".join(piece.lower() for piece in re.split(r"(?=[A-Z])", cased) if piece)

    def type_of(self, class_name: str, model: str) -> str:
        """The kind of file that a class of this model goes into."""
        rest = class_name.replace(self.cased(model), "")
        return next((kind for suffix, kind in _LONGEST_FIRST if rest.endswith(suffix)), "modeling")


def common_suffix(first: str, second: str) -> str:
    """The longest common suffix of two names; empty where it is the whole of one of them."""
    size = 0
    while size < min(len(first), len(second)) and first[-1 - size] == second[-1 - size]:
        size += 1
    return "" if size in (len(first), len(second)) else first[len(first) - size :]


def read_table(models: Path) -> dict[str, str]:
    """The model types and configuration classes that `auto/` under a folder of models lists; read, never imported."""
    table: dict[str, str] = {}
    for name in ("auto_mappings.py", "configuration_auto.py"):
        file = models / "auto" / name
        if not file.is_file():
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            table = _entries(node, table)
    return table


def _entries(node: ast.stmt, table: dict[str, str]) -> dict[str, str]:
    """The table after a statement of the mapping's file, where it assigns or updates `CONFIG_MAPPING_NAMES`."""
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONFIG_MAPPING_NAMES":
        call = node.value
        if not isinstance(call, ast.Call):
            return table
        pairs: dict[str, str] = {}
        for argument in call.args:
            pairs.update(dict(_literal(argument, [])))
        for keyword in call.keywords:
            pairs.update(table if isinstance(keyword.value, ast.Name) else dict(_literal(keyword.value, {})))
        return pairs
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "CONFIG_MAPPING_NAMES.update"
    ):
        return {**table, **dict(_literal(node.value.args[0], {}))}
    return table


def _literal(node: ast.expr, default: object) -> dict[str, str]:
    try:
        return dict(ast.literal_eval(node))
    except ValueError:
        return dict(default)  # type: ignore[call-overload, no-any-return]
