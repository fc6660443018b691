"""Which head a model has, and which task that is for."""

from __future__ import annotations

from typing import Any

from unibody.model_card import TASKS
from unibody.model_types import class_names

TASK_OF_HEAD = {**TASKS, "AutoModel": "feature-extraction"}  # by the auto class


def head_of(class_name: str, model_type: Any) -> str | None:
    """The auto class that stands for a model's class; None: it is none that the registry has, or a program has registered."""
    return next((auto for auto, name in class_names(str(model_type)).items() if name == class_name), None)


def require_head(model: Any, auto_classes: tuple[str, ...], task: str) -> None:
    """Nothing. ValueError: the model's class is known to have another head than the task needs."""
    names = [base.__name__ for base in type(model).__mro__]
    kind = getattr(getattr(model, "config", None), "model_type", None)
    refuse_head(next(filter(None, (head_of(name, kind) for name in names)), None), names[0], auto_classes, task)


def refuse_head(head: str | None, class_name: str, auto_classes: tuple[str, ...], task: str) -> None:
    if head is None or not auto_classes or head in auto_classes or "AutoModel" in auto_classes:
        return
    raise ValueError(
        f"{class_name} has no head for {task}, which needs {' or '.join(auto_classes)}; it is for {TASK_OF_HEAD[head]}"
    )
