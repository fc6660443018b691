"""Callbacks that report a run to a tracker: what all share is in `base.py`, what differs in a page each."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from unibody.integrations.availability import is_available

TRACKERS = {  # name in `report_to` -> class, in the module of this name
    "comet": "CometCallback",
    "jsonl": "JsonlCallback",
    "mlflow": "MLflowCallback",
    "tensorboard": "TensorBoardCallback",
    "trackio": "TrackioCallback",
    "wandb": "WandbCallback",
}
ALIASES = {"comet_ml": "comet"}


def get_available_reporting_integrations() -> list[str]:
    """The trackers that can be reported to here."""
    return [name for name in TRACKERS if name == "jsonl" or is_available(name)]


def get_reporting_integration_callbacks(report_to: str | Iterable[str] | None) -> list[type[Any]]:
    """The callbacks for trackers by name, "all" that are installed, or "none". ValueError: there is no such tracker."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names == ["all"]:
        names = get_available_reporting_integrations()
    if names == ["none"]:
        names = []
    return [callback_class(name) for name in dict.fromkeys(names)]


def callback_class(name: str) -> type[Any]:
    name = ALIASES.get(name, name)
    if name not in TRACKERS:
        near = get_close_matches(name, TRACKERS, n=1)
        remedy = f"do you mean {near[0]!r}?" if near else f"report to some of {', '.join(TRACKERS)}, 'all' or 'none'"
        raise ValueError(f"report_to names {name!r}, which is no tracker: {remedy}")
    found: type[Any] = getattr(import_module(f"unibody.integrations.reporting.{name}"), TRACKERS[name])
    return found


def __getattr__(name: str) -> Any:
    for tracker, callback in TRACKERS.items():
        if callback == name:
            return callback_class(tracker)
    raise AttributeError(f"module 'unibody.integrations.reporting' has no attribute {name!r}")
