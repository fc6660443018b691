"""Plans of tensor parallelism for formats of which not every part of a layer is a layer."""

from __future__ import annotations

from typing import Any


def split_rows_only(config: Any) -> Any:
    """The configuration, by whose plan layers gather their inputs and split rows where they would have split columns."""
    if plan := getattr(config, "base_model_tp_plan", None):
        styles = {"rowwise": "colwise_whole_input"}
        config.base_model_tp_plan = {name: styles.get(style, style) for name, style in plan.items()}
    return config
