"""The tasks that there are pipelines for, and how to add one."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import isclass
from typing import Any

ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


@dataclass(frozen=True)
class Task:
    """The pipeline of a task, the auto classes that read its models (names, or classes), and the model if none is named."""

    pipeline_class: Any
    auto_classes: tuple[Any, ...] = ()
    default: dict[str, Any] = field(default_factory=dict)


class PipelineRegistry:
    """Tasks by name."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}

    def get_supported_tasks(self) -> list[str]:
        """All names, aliases too, in alphabetical order."""
        return sorted([*self.tasks, *ALIASES])

    def check_task(self, task: str) -> tuple[str, Task]:
        """The task's own name, and what it is. ValueError: there is none of this name; says which are near."""
        name = ALIASES.get(task, task)
        if name in self.tasks:
            return name, self.tasks[name]
        known = self.get_supported_tasks()
        near = get_close_matches(str(task), known, n=3) or known
        raise ValueError(
            f"there is no task {task!r}: use {', '.join(near)}; `register_pipeline` adds one, "
            "and a checkpoint that brings its own needs trust_remote_code=True"
        )

    def register_pipeline(
        self,
        task: str,
        pipeline_class: type,
        pt_model: Any = None,
        default: dict[str, Any] | None = None,
        type: str | None = None,  # noqa: A002  the ecosystem's name
    ) -> None:
        """Adds a task, or replaces one.

        `pt_model` is the auto class that reads its models, or a tuple of them; `default` names the model if the caller names
        none, as {"model": "owner/name"} or {"model": ("owner/name", "revision")}, where "pt" may stand too; `type`, such as
        "text", is without effect.
        """
        from unibody.pipelines.base import Pipeline

        if task in ALIASES or not task:
            raise ValueError(
                f"task {task!r} is another name of {ALIASES.get(task)!r}: register under a name of its own"
            )
        if not (isclass(pipeline_class) and issubclass(pipeline_class, Pipeline)):
            raise TypeError(f"{pipeline_class!r} is not a subclass of unibody.Pipeline")
        given = pt_model if isinstance(pt_model, (tuple, list)) else (pt_model,)
        classes = tuple(found for found in given if found is not None) or pipeline_class.auto_classes
        self.tasks[task] = Task(pipeline_class, tuple(classes), dict(default or {}))


PIPELINE_REGISTRY = PipelineRegistry()
register_pipeline = PIPELINE_REGISTRY.register_pipeline
