"""The `unibody` command. What a command needs is imported when it runs: `unibody --help` loads no compiler."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from unibody.generator.report import Format

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


def _tree(dialect: str | None, root: Path | None, project: Path) -> Path | None:
    """The folder of the models if the dialect is transformers'; None for our own."""
    from unibody.generator import commands

    try:
        return commands.find_tree(dialect, root, project)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


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


@unibody.command()
@options(names, project, form, jobs)
@click.option("--stdout", is_flag=True, help="Print the generated file of the one NAME instead of writing it.")
@options(dialect, root)
@click.option(
    "--output", type=FILE, help="For the transformers dialect: write below this folder, not beside the sources."
)
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

    if tree := _tree(dialect, root, project):
        from unibody.generator.transformers import commands as transformers

        sys.exit(transformers.generate(tree, list(names), output, jobs, form))
    if stdout:
        if len(names) != 1:
            raise click.BadParameter("name one definition: --stdout prints one file", param_hint="NAME")
        sys.exit(commands.show(names[0], project))
    sys.exit(commands.generate(list(names), project, form, jobs))


@unibody.command()
@options(names, project, form, jobs, dialect, root)
@click.option("--report", type=FILE, help="For the transformers dialect: write the findings to this file, as JSON.")
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

    if tree := _tree(dialect, root, project):
        from unibody.generator.transformers import commands as transformers

        sys.exit(transformers.check(tree, list(names), report, jobs, form=form))
    sys.exit(commands.check(list(names), project, form, jobs))


@unibody.command()
@options(names, project, root, form)
@click.option("--baseline", type=FILE, help="A file of findings that are known and not reported.")
@click.option("--write-baseline", is_flag=True, help="Write the findings to the baseline instead of reporting them.")
def lint(
    names: tuple[str, ...], project: Path, root: Path | None, form: Format, baseline: Path | None, write_baseline: bool
) -> None:
    """Find what the transformers dialect corrupts or drops.

    Exits with 0 if nothing was found, with 1 if something was, and with 2 on wrong usage.
    """
    from unibody.generator.transformers import commands as transformers

    if write_baseline and baseline is None:
        raise click.BadParameter("name the file to write", param_hint="--baseline")
    tree = _tree("transformers", root, project)
    assert tree is not None
    sys.exit(transformers.lint(tree, list(names), form, baseline, write_baseline))


@unibody.command()
@options(names, project)
def diff(names: tuple[str, ...], project: Path) -> None:
    """Show what `generate` would change, as a patch.

    Writes none of them. Exits with 0 if nothing would change, otherwise as `check` does.
    """
    from unibody.generator import commands

    sys.exit(commands.diff(list(names), project))


@unibody.command()
@options(names, project)
def watch(names: tuple[str, ...], project: Path) -> None:
    """Generate whenever a source changes.

    Watches definitions, core blocks, templates and pyproject.toml, and goes on after errors, until Ctrl-C.
    """
    from unibody.generator.tools.watch import watch

    sys.exit(watch(list(names), project))


@unibody.command()
@click.argument("place", metavar="FILE:LINE")
@project
def explain(place: str, project: Path) -> None:
    """Say where a generated line comes from.

    Prints the line of the definition, core block or template that FILE:LINE was made from, and the classes in between. Exits
    with 1 if the definition does not make the line.
    """
    from unibody.generator.tools.explain import explain

    sys.exit(explain(place, project))


@unibody.command()
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
def graph(names: tuple[str, ...], project: Path, form: str, classes: bool) -> None:
    """Draw the family tree of definitions.

    With names: those definitions, their ancestors and their descendants.
    """
    from unibody.generator.tools.family_tree import graph

    sys.exit(graph(list(names), project, form, classes))


@unibody.group(no_args_is_help=True)
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


@unibody.command("help")
@click.argument("code", required=False)
def help_(code: str | None) -> None:
    """Explain the code of an error, with an example and its remedy.

    CODE is one such as UB012; without it, all codes are listed.
    """
    from unibody.generator.tools.explanations import explain_code

    sys.exit(explain_code(code))


@unibody.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@click.argument("model")
@click.argument("method")
@click.argument("out", type=FILE)
@click.option("--dtype", help="The type of what is not packed, such as bfloat16; by default the checkpoint's.")
@click.pass_context
def quantize(context: click.Context, model: str, method: str, out: Path, dtype: str | None) -> None:
    """Quantize a checkpoint.

    MODEL is a folder with a checkpoint, or a Hub id; METHOD such as gptq, awq or hqq; OUT the folder to write, new or empty.
    Further options are the parameters of the method's configuration: --bits 4 --group-size 64 --desc-act. A --dataset may be
    a text file, whose paragraphs are the texts.
    """
    from unibody.quantize import quantize

    sys.exit(quantize(model, method, out, context.args, dtype))


@unibody.command()
@click.argument("checkpoint")
@click.option("--dtype", help="The type of inputs, such as bfloat16; by default the checkpoint's.")
@click.option("--device", help="Where it is to run, such as cpu or cuda; by default a GPU where there is one.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people, json for programs.",
)
def inspect(checkpoint: str, dtype: str | None, device: str | None, form: str) -> None:
    """Say what a quantized checkpoint is.

    CHECKPOINT is a folder, or a Hub id. Prints its method and settings, the layers that are quantized and those that are
    plain, the bits of a weight, which kernel this machine runs them with, and why not a faster one.
    """
    from unibody.inspection import inspect

    sys.exit(inspect(checkpoint, dtype, device, form))


@unibody.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--dtype", help="Such as bfloat16; by default the checkpoint's.")
@click.option("--device", help="Such as cpu or cuda.")
@click.option("--revision", help="A branch, tag or commit of the Hub's repository.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=100, show_default=True)
@click.option(
    "--temperature", type=float, help="With one of these three, tokens are drawn; otherwise the likeliest is taken."
)
@click.option("--top-k", type=click.IntRange(min=1))
@click.option("--top-p", type=float)
@click.option("--seed", type=int)
def run(model: str, prompt: str, **options: object) -> None:
    """Continue a text with a model, writing while it is generated.

    MODEL is a folder with a checkpoint, quantized or not, or a Hub id; PROMPT the text.
    """
    from unibody.running import run

    sys.exit(run(model, prompt, options))


@unibody.group(no_args_is_help=True)
def export() -> None:
    """Write a model in another program's format."""


@export.command("gguf")
@click.argument("model")
@click.argument("out", type=FILE)
@click.option("--dtype", default="f16", show_default=True, help="f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0.")
@click.option("--tokenizer", type=FOLDER, help="The folder of the tokenizer.json, if it is not the model's.")
@click.option("--pre", help="llama.cpp's name of how texts are split into words, if tokenizer.json does not tell.")
@click.option("--revision", help="A branch, tag or commit of the Hub's repository.")
def export_gguf(model: str, out: Path, **options: object) -> None:
    """Write the one file that llama.cpp runs.

    MODEL is a folder with a checkpoint of the Llama family, quantized or not, or a Hub id; OUT the file.
    """
    from unibody.integrations.gguf import run

    sys.exit(run(model, out, options))


@unibody.command()
@click.argument("model")
@click.option("--system", help="What the model is told before the conversation begins.")
@click.option("--dtype", help="Such as bfloat16; by default the checkpoint's.")
@click.option("--device", help="Such as cpu or cuda.")
@click.option("--revision", help="A branch, tag or commit of the Hub's repository.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Of an answer.")
@click.option(
    "--temperature",
    type=float,
    help="With one of these three, tokens are drawn; otherwise as the checkpoint's generation_config.json says.",
)
@click.option("--top-k", type=click.IntRange(min=1))
@click.option("--top-p", type=float)
@click.option("--seed", type=int)
def chat(model: str, **options: object) -> None:
    """Talk with a model.

    MODEL is a folder with a checkpoint that was tuned for conversations, or a Hub id. Each line is a message; /clear begins anew,
    /exit ends, Ctrl-C cuts an answer short.
    """
    from unibody.chatting import chat

    sys.exit(chat(model, options))


@unibody.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, default=None, help="Only you may see the repository, if it is made now.")
@click.option("--revision", help="The branch; it is made if there is none.")
@click.option("--pull-request", "create_pr", is_flag=True, help="Ask for the change instead of making it.")
@click.option("--message", "commit_message", help="The title of the commit.")
def push(folder: Path, repo: str, **options: object) -> None:
    """Upload a checkpoint to the Hub.

    FOLDER is the checkpoint's; REPO is OWNER/NAME, which is made if there is none. What is new or changed becomes one commit; a
    model card is written there if there is none.
    """
    from unibody.publishing import push

    sys.exit(push(folder, repo, **options))


@unibody.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo")
def card(folder: Path, repo: str) -> None:
    """Write the model card of a checkpoint.

    FOLDER is the checkpoint's, whose README.md is written unless there is one; REPO is OWNER/NAME, where it will be.
    """
    from unibody.publishing import write_card

    sys.exit(write_card(folder, repo))


@unibody.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config-dir", type=FOLDER, required=True, help="The folder of configurations and their groups.")
@click.option("--config-name", required=True, help="The configuration, such as `inference`.")
@click.option("--multirun", is_flag=True, help="Let overrides have several values: backend=unibody,torch.")
@click.option(
    "--commit", "commits", help="Commits to compare, A,B; `worktree` is the checkout as it is, `diff` main,HEAD."
)
@click.option("--metrics", help="What summaries show, such as decode.latency.mean,per_token.throughput.value.")
@click.option("--baseline", help="An override of the sweep that the others are compared with: backend=transformers.")
@click.option("--compare", type=FOLDER, multiple=True, help="Results of an earlier run, or of optimum-benchmark.")
@click.option("--fail-on-regression", metavar="PERCENT", help="Exit with 1 if a commit is worse by more, as in 5%.")
@click.option("--output", type=FOLDER, help="The folder of the results; by default a new one in benchmark-results/.")
@click.option(
    "--database", help="A SQLite file or postgresql+psycopg://…; by default benchmarks.sqlite in the results."
)
@click.option("--repository", type=FOLDER, default=Path(), help="The checkout whose commits are compared.")
@click.option("--repo-id", help="Upload the results to this dataset repository of the Hub, OWNER/NAME.")
@click.option("--path-in-repo", default="", help="Where they go there.")
def bench(overrides: tuple[str, ...], **options: object) -> None:
    """Measure speed and memory, and compare commits.

    Of models, quantizers, kernels and the compiler, and of other libraries beside them. KEY=VALUE changes the configuration, as
    Hydra reads it. Exits with 0; with 1 if a run failed or there is a regression; with 2 if nothing could be done.
    """
    try:
        from unibody.bench.command import bench
    except ModuleNotFoundError as error:
        if error.name not in ("hydra", "omegaconf", "psutil", "sqlalchemy"):
            raise
        click.echo(f"error: {error.name} is not installed: pip install 'unibody[benchmark]'", err=True)
        sys.exit(2)
    sys.exit(bench(overrides, options))


def main() -> None:
    """Run the command; a defect of unibody itself ends with its traceback and exit code 2, never 1."""
    try:
        unibody(prog_name="unibody")
    except Exception:  # noqa: BLE001  whatever reaches this line is such a defect
        traceback.print_exc()
        print(
            "\nunibody: internal error. This is a defect of unibody, not of your input: please report it with the lines above.",
            file=sys.stderr,
        )
        sys.exit(2)
