"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)

names = click.argument("names", metavar="[NAME]...", nargs=-1)  # such as `llama` or `models/llama`; none: all
project = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="The folder of the pyproject.toml that has [tool.unibody].",
)
form = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="text for people, json for programs, github for annotations of a change.",
)
jobs = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="The most processes to use; one is enough for fewer than two dozen definitions.",
)
dialect = click.option(
    "--dialect",
    type=click.Choice(["unibody", "transformers"]),
    help="unibody, or transformers: that project's own `modular_*.py`; by default as [tool.unibody] says.",
)
root = click.option("--root", type=FOLDER, help="For the transformers dialect: the folder of the models.")


def options(*every: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(every):
            command = option(command)
        return command

    return decorate


loading = options(
    click.option("--dtype", help="Such as bfloat16; by default the checkpoint's."),
    click.option("--device", help="Such as cpu or cuda."),
    click.option("--revision", help="A branch, tag or commit of the Hub's repository."),
)
drawing = options(
    click.option("--top-k", type=click.IntRange(min=1)),
    click.option("--top-p", type=float),
    click.option("--seed", type=int),
)
