"""trackio: a local database (TRACKIO_DIR), which `trackio show` shows; TRACKIO_SPACE_ID puts it on a Space of the Hub."""

from __future__ import annotations

import os
from typing import Any

from unibody.integrations.reporting.base import ReportingCallback, settings
from unibody.training.state import TrainerState


class TrackioCallback(ReportingCallback):
    """Values by step, in the program's run or one of its own."""

    package = "trackio"

    def __init__(self) -> None:
        super().__init__()
        self.owned = False

    def start(self, args: Any, state: TrainerState, model: Any) -> None:
        import trackio
        from trackio import context_vars

        if context_vars.current_run.get() is None:
            options: dict[str, Any] = {"space_id": space} if (space := os.environ.get("TRACKIO_SPACE_ID")) else {}
            config, name = settings(args, model), args.run_name
            trackio.init(project=args.project, name=name, config=config, resume="allow", embed=False, **options)
            self.owned = True

    def write(self, values: dict[str, float], state: TrainerState) -> None:
        import trackio

        trackio.log(values, step=state.global_step)

    def end(self) -> None:
        if self.owned:
            import trackio

            finish: Any = trackio.finish
            finish()
            self.owned = False
