"""The `unibody` command. What a command needs is imported when it runs: `unibody --help` loads no compiler."""

from __future__ import annotations

import sys
import traceback
from enum import StrEnum
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
new = typer.Typer(
    help="Write the start of a definition, and of its test.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(new, name="new")


class Form(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


class Language(StrEnum):
    """How definitions are read and written out."""

    UNIBODY = "unibody"
    TRANSFORMERS = "transformers"


class Drawing(StrEnum):
    """What a graph is written in."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


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
Findings = Annotated[
    Form, typer.Option("--format", help="text for people, json for programs, github for annotations of a change.")
]
Jobs = Annotated[
    int, typer.Option(min=1, help="The most processes to use; one is enough for fewer than two dozen definitions.")
]


Dialect = Annotated[
    Language | None,
    typer.Option(
        help="unibody, or transformers: that project's own `modular_*.py`; by default as [tool.unibody] says."
    ),
]
Root = Annotated[
    Path | None, typer.Option(help="For the transformers dialect: the folder of the models.", file_okay=False)
]


def _tree(dialect: Language | None, root: Path | None, project: Path) -> Path | None:
    """The folder of the models if the dialect is transformers'; None for our own."""
    from unibody.generator import commands

    try:
        return commands.find_tree(dialect and dialect.value, root, project)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
def generate(
    names: Names = None,
    project: Project = Path(),
    form: Findings = Form.TEXT,
    jobs: Jobs = 1,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="Print the generated file of the one NAME instead of writing it.")
    ] = False,
    dialect: Dialect = None,
    root: Root = None,
    output: Annotated[
        Path | None,
        typer.Option(help="For the transformers dialect: write below this folder, not beside the sources."),
    ] = None,
) -> None:
    """Compile definitions; write the generated files that change."""
    from unibody.generator import commands

    if tree := _tree(dialect, root, project):
        from unibody.generator.transformers import commands as transformers

        raise typer.Exit(transformers.generate(tree, names or [], output, jobs))
    if stdout:
        if not names or len(names) > 1:
            raise typer.BadParameter("name one definition: --stdout prints one file", param_hint="NAME")
        raise typer.Exit(commands.show(names[0], project))
    raise typer.Exit(commands.generate(names or [], project, form.value, jobs))


@app.command()
def check(
    names: Names = None,
    project: Project = Path(),
    form: Findings = Form.TEXT,
    jobs: Jobs = 1,
    dialect: Dialect = None,
    root: Root = None,
    report: Annotated[
        Path | None, typer.Option(help="For the transformers dialect: write the findings to this file, as JSON.")
    ] = None,
) -> None:
    """Say which generated files are stale, missing or orphaned.

    Writes none of them. Exits with 0 if all is up to date, with 1 if not or if a definition cannot be compiled, and with 2
    on wrong usage.
    """
    from unibody.generator import commands

    if tree := _tree(dialect, root, project):
        from unibody.generator.transformers import commands as transformers

        raise typer.Exit(transformers.check(tree, names or [], report, jobs))
    raise typer.Exit(commands.check(names or [], project, form.value, jobs))


@app.command()
def lint(
    names: Names = None,
    project: Project = Path(),
    root: Root = None,
    form: Findings = Form.TEXT,
    baseline: Annotated[Path | None, typer.Option(help="A file of findings that are known and not reported.")] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write the findings to the baseline instead of reporting them.")
    ] = False,
) -> None:
    """Find what the transformers dialect corrupts or drops.

    Exits with 0 if nothing was found, with 1 if something was, and with 2 on wrong usage.
    """
    from unibody.generator.transformers import commands as transformers

    if write_baseline and baseline is None:
        raise typer.BadParameter("name the file to write", param_hint="--baseline")
    tree = _tree(Language.TRANSFORMERS, root, project)
    assert tree is not None
    raise typer.Exit(transformers.lint(tree, names or [], form.value, baseline, write_baseline))


@app.command()
def diff(names: Names = None, project: Project = Path()) -> None:
    """Show what `generate` would change, as a patch.

    Writes none of them. Exits with 0 if nothing would change, otherwise as `check` does.
    """
    from unibody.generator import commands

    raise typer.Exit(commands.diff(names or [], project))


@app.command()
def watch(names: Names = None, project: Project = Path()) -> None:
    """Generate whenever a source changes.

    Watches definitions, core blocks, templates and pyproject.toml, and goes on after errors, until Ctrl-C.
    """
    from unibody.generator.tools.watch import watch

    raise typer.Exit(watch(names or [], project))


@app.command()
def explain(
    place: Annotated[str, typer.Argument(metavar="FILE:LINE", help="A line of a generated file.")],
    project: Project = Path(),
) -> None:
    """Say where a generated line comes from.

    Prints the line of the definition, core block or template that it was made from, and the classes in between. Exits
    with 1 if the definition does not make the line.
    """
    from unibody.generator.tools.explain import explain

    raise typer.Exit(explain(place, project))


@app.command()
def graph(
    names: Names = None,
    project: Project = Path(),
    form: Annotated[Drawing, typer.Option("--format", help="What to write it in.")] = Drawing.MERMAID,
    classes: Annotated[bool, typer.Option("--classes", help="Show the classes of each definition.")] = False,
) -> None:
    """Draw the family tree of definitions.

    With names: those definitions, their ancestors and their descendants.
    """
    from unibody.generator.tools.family_tree import graph

    raise typer.Exit(graph(names or [], project, form.value, classes))


@new.command("model")
def new_model(
    name: Annotated[str, typer.Argument(help="Its model type, such as `qwen2`.")],
    parent: Annotated[str, typer.Option("--from", help="The definition that it inherits from, such as `llama`.")],
    prefix: Annotated[str, typer.Option(help="What its class names begin with; from NAME if not given.")] = "",
    all_heads: Annotated[
        bool, typer.Option("--all-heads", help="Every head that the parent has, not only its first.")
    ] = False,
    project: Project = Path(),
) -> None:
    """Write a definition that compiles at once, and its test.

    The test compares the generated classes with those of transformers, on a tiny configuration.
    """
    from unibody.generator.tools.scaffold import new_model

    raise typer.Exit(new_model(name, parent, prefix, all_heads, project))


@app.command("help")
def help_(
    code: Annotated[
        str | None, typer.Argument(help="A code such as UB012; without one, all codes are listed.")
    ] = None,
) -> None:
    """Explain the code of an error, with an example and its remedy."""
    from unibody.generator.tools.explanations import explain_code

    raise typer.Exit(explain_code(code))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder with a checkpoint, or a Hub id.")],
    method: Annotated[str, typer.Argument(help="Such as gptq, awq or hqq.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it is new or empty.")],
    dtype: Annotated[
        str | None, typer.Option(help="The type of what is not packed, such as bfloat16; by default the checkpoint's.")
    ] = None,
) -> None:
    """Quantize a checkpoint.

    Further options are the parameters of the method's configuration: --bits 4 --group-size 64 --desc-act. A --dataset may be
    a text file, whose paragraphs are the texts.
    """
    from unibody.quantize import quantize

    raise typer.Exit(quantize(model, method, out, context.args, dtype))


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
