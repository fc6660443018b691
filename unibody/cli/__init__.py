"""The `unibody` command. What a command needs is imported when it runs: `unibody --help` loads no compiler."""

from __future__ import annotations

import sys
import traceback
import warnings

import click

from unibody.cli import compiler, models

OF_MODELS = ("huggingface_hub", "safetensors", "tokenizers", "torch")  # the compiler needs none of them


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        import unibody

        click.echo(f"unibody {unibody.__version__}")
        context.exit()


@click.group(no_args_is_help=True)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def unibody() -> None:
    """Compiles modular definitions of models and quantizers into standalone single files.

    A NAME is a definition, such as `llama` or `models/llama`; a command without names takes all of them.
    """


for command in (*compiler.COMMANDS, *models.COMMANDS):
    unibody.add_command(command)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"warning: {message}", err=True)  # the line of the library that warns is of no use to who reads it


def main() -> None:
    """Run the command; a defect of unibody itself ends with its traceback and exit code 2, never 1."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            unibody(prog_name="unibody")
    except Exception as error:  # noqa: BLE001  whatever goes past the next line is such a defect
        if isinstance(error, ModuleNotFoundError) and error.name in OF_MODELS:
            click.echo(f"error: {error.name} is not installed: pip install 'unibody[models]'", err=True)
            sys.exit(2)
        traceback.print_exc()
        click.echo(
            "\nunibody: internal error. This is a defect of unibody, not of your input: please report it with the lines above.",
            err=True,
        )
        sys.exit(2)
