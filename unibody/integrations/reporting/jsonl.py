"""A file of JSON lines, `log.jsonl` in output_dir: always there, read by anything, and right after a resume."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from unibody.core.saving import write_atomically
from unibody.integrations.reporting.base import ReportingCallback
from unibody.training.state import TrainerControl, TrainerState


class JsonlCallback(ReportingCallback):
    """One line for each log: step, seconds since 1970 and the values under the names that the trainer logs them by.

    A run that begins anew begins the file anew; one that resumes drops the lines after its step, which will be written again.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        super().__init__()
        self.file = None if file is None else Path(file)  # None: log.jsonl in output_dir

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        super().on_train_begin(args, state, control, **kwargs)
        self.report(state, self.rewind, state.global_step)

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        self.file = self.file or Path(args.output_dir, "log.jsonl")
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def rewind(self, step: int) -> None:
        assert self.file is not None
        if not self.file.exists():
            return
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if step else []
        text = "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step)
        write_atomically(self.file, lambda path: path.write_text(text, encoding="utf-8"))

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        self.begin(args, state, kwargs.get("model"))
        self.report(state, self.write, kwargs["logs"], state)

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        assert self.file is not None
        line = {"step": state.global_step, "time": round(time.time(), 3), **values}
        numbers = {name: strict(value) for name, value in line.items() if isinstance(value, int | float)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbers, allow_nan=False) + "\n")


def strict(value: float) -> float | None:
    """The number, or None where JSON has none for it."""
    return value if math.isfinite(value) else None
