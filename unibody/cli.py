"""The `unibody` command. What a command needs is imported when it runs: `unibody --help` loads no compiler."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Compiles modular definitions of models and quantizers into standalone single files.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help and tracebacks: typer would import rich for them, which takes longer than a check with nothing to do.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="Definitions, such as `llama` or `models/llama`; all of them if none is named."
    ),
]
Project = Annotated[
    Path,
    typer.Option(help="The folder of the pyproject.toml that has [tool.unibody].", exists=True, file_okay=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        import unibody

        typer.echo(f"unibody {unibody.__version__}")
        raise typer.Exit


@app.callback()
def unibody(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def generate(names: Names = None, project: Project = Path()) -> None:
    """Compile definitions; write the generated files that change."""
    from unibody.generator import commands

    raise typer.Exit(commands.generate(names or [], project))


@app.command()
def check(names: Names = None, project: Project = Path()) -> None:
    """Say which generated files are stale, missing or orphaned.

    Writes nothing. Exits with 0 if all is up to date, with 1 if not or if a definition cannot be compiled, and with 2
    on wrong usage.
    """
    from unibody.generator import commands

    raise typer.Exit(commands.check(names or [], project))


def main() -> None:
    """Run the command; a defect of unibody itself ends with its traceback and exit code 2, never 1."""
    try:
        app(prog_name="unibody")
    except Exception:  # noqa: BLE001  whatever reaches this line is such a defect
        traceback.print_exc()
        print(
            "\nunibody: internal error. This is a defect of unibody, not of your input: please report it with the lines above.",
            file=sys.stderr,
        )
        sys.exit(2)
