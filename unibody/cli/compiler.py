"""The commands of the compiler, for definitions and what they generate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unibody.cli.options import FILE, dialect, form, jobs, names, options, project, root

if TYPE_CHECKING:
    from unibody.generator.project import Project
    from unibody.generator.report import Format


def _project(folder: Path, dialect: str | None, root: Path | None) -> Path | Project:
    """Where the project is, or the project itself where the options say enough."""
    from unibody.generator.project import choose_project

    try:
        return choose_project(folder, dialect, root)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@options(names, project, form, jobs)
@click.option("--stdout", is_flag=True, help="Print the generated file of the one NAME instead of writing it.")
@options(dialect, root)
@click.option("--output", type=FILE, help="Write below this folder, not where the project has its files.")
def generate(
    names: tuple[str, ...],
    project: Path,
    form: Format,
    jobs: int,
    stdout: bool,
    dialect: str | None,
    root: Path | None,
    output: Path | None,
) -> None:
    """Compile definitions; write the generated files that change."""
    from unibody.generator import commands

    found = _project(project, dialect, root)
    if stdout:
        if len(names) != 1:
            raise click.BadParameter("name one definition: --stdout prints one file", param_hint="NAME")
        sys.exit(commands.show(names[0], found))
    sys.exit(commands.generate(list(names), found, form, jobs, output=output))


@click.command()
@options(names, project, form, jobs, dialect, root)
@click.option("--report", type=FILE, help="Write the findings, and what the run cost, to this file, as JSON.")
def check(
    names: tuple[str, ...],
    project: Path,
    form: Format,
    jobs: int,
    dialect: str | None,
    root: Path | None,
    report: Path | None,
) -> None:
    """Say which generated files are stale, missing or orphaned.

    Writes none of them. Exits with 0 if all is up to date, with 1 if not or if a definition cannot be compiled, and with 2
    on wrong usage.
    """
    from unibody.generator import commands

    sys.exit(commands.check(list(names), _project(project, dialect, root), form, jobs, report))


@click.command()
@options(names, project, root, form)
@click.option("--baseline", type=FILE, help="A file of findings that are known and not reported.")
@click.option("--write-baseline", is_flag=True, help="Write the findings to the baseline instead of reporting them.")
def lint(
    names: tuple[str, ...], project: Path, root: Path | None, form: Format, baseline: Path | None, write_baseline: bool
) -> None:
    """Find what the transformers dialect corrupts or drops.

    Exits with 0 if nothing was found, with 1 if something was, and with 2 on wrong usage.
    """
    from unibody.generator.transformers.lint import lint_project

    if write_baseline and baseline is None:
        raise click.BadParameter("name the file to write", param_hint="--baseline")
    found = _project(project, "transformers", root)
    sys.exit(lint_project(list(names), found, form, baseline, write_baseline))


@click.command()
@options(names, project, jobs, dialect, root)
def diff(names: tuple[str, ...], project: Path, jobs: int, dialect: str | None, root: Path | None) -> None:
    """Show what `generate` would change, as a patch.

    Writes none of them. Exits with 0 if nothing would change, otherwise as `check` does.
    """
    from unibody.generator import commands

    sys.exit(commands.diff(list(names), _project(project, dialect, root), jobs))


@click.command()
@options(names, project, dialect, root)
def watch(names: tuple[str, ...], project: Path, dialect: str | None, root: Path | None) -> None:
    """Generate whenever a source changes.

    Watches definitions, core blocks, templates and pyproject.toml, and goes on after errors, until Ctrl-C.
    """
    from unibody.generator.tools.watch import watch

    sys.exit(watch(list(names), _project(project, dialect, root)))


@click.command()
@click.argument("place", metavar="FILE:LINE")
@options(project, dialect, root)
def explain(place: str, project: Path, dialect: str | None, root: Path | None) -> None:
    """Say where a generated line comes from.

    Prints the line of the definition, core block or template that FILE:LINE was made from, and the classes in between. Exits
    with 1 if the definition does not make the line.
    """
    from unibody.generator.tools.explain import explain

    sys.exit(explain(place, _project(project, dialect, root)))


@click.command()
@options(names, project)
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
    help="What to write it in.",
)
@click.option("--classes", is_flag=True, help="Show the classes of each definition.")
@options(dialect, root)
def graph(
    names: tuple[str, ...], project: Path, form: str, classes: bool, dialect: str | None, root: Path | None
) -> None:
    """Draw the family tree of definitions.

    With names: those definitions, their ancestors and their descendants.
    """
    from unibody.generator.tools.family_tree import graph

    sys.exit(graph(list(names), _project(project, dialect, root), form, classes))


@click.group(no_args_is_help=True)
def new() -> None:
    """Write the start of a definition, and of its test."""


@new.command("model")
@click.argument("name")
@click.option("--from", "parent", required=True, help="The definition that it inherits from, such as `llama`.")
@click.option("--prefix", default="", help="What its class names begin with; from NAME if not given.")
@click.option("--all-heads", is_flag=True, help="Every head that the parent has, not only its first.")
@project
def new_model(name: str, parent: str, prefix: str, all_heads: bool, project: Path) -> None:
    """Write a definition that compiles at once, and its test.

    NAME is its model type, such as `qwen2`. The test compares the generated classes with those of transformers, on a tiny
    configuration.
    """
    from unibody.generator.tools.scaffold import new_model

    sys.exit(new_model(name, parent, prefix, all_heads, project))


@click.command("help")
@click.argument("code", required=False)
def help_(code: str | None) -> None:
    """Explain the code of an error or a finding, with an example.

    CODE is one such as UB012 or TD001; without it, all codes are listed.
    """
    from unibody.generator.tools.explanations import explain_code

    sys.exit(explain_code(code))


COMMANDS = (generate, check, diff, watch, explain, lint, graph, new, help_)
