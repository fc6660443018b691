"""Metrics of a run as users' scripts print and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibody.core.hub import read_json
from unibody.core.saving import write_json

if TYPE_CHECKING:
    from unibody.training.arguments import TrainingArguments
    from unibody.training.engines import Engine


class ReportsMixin:
    """`log_metrics` and `save_metrics` of a trainer; the first process does it."""

    args: TrainingArguments
    engine: Engine

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Prints the metrics of a split ("train", "eval", …), one a line."""
        if not self.engine.is_main_process:
            return
        print(f"***** {split} metrics *****")
        width = max(map(len, metrics), default=0)
        for name in sorted(metrics):
            value = metrics[name]
            print(f"  {name:{width}} = {f'{value:.4f}' if isinstance(value, float) else value}")

    def save_metrics(self, split: str, metrics: dict[str, Any], combined: bool = True) -> None:
        """Writes `<split>_results.json` to output_dir, and if `combined` adds to its all_results.json."""
        if not self.engine.is_main_process:
            return
        folder = Path(self.args.output_dir)
        write_json(folder / f"{split}_results.json", metrics)
        if combined:
            every = folder / "all_results.json"
            write_json(every, (read_json(every) if every.is_file() else {}) | metrics)
