"""The commands of the library, for checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unibody.cli.method_help import MethodCommand
from unibody.cli.options import FILE, FOLDER, drawing, loading


@click.command(cls=MethodCommand, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@click.argument("model")
@click.argument("method")
@click.argument("out", type=FILE)
@click.option("--dtype", help="The type of what is not packed, such as bfloat16; by default the checkpoint's.")
@click.option("--revision", help="A branch, tag or commit of the Hub's repository.")
@click.pass_context
def quantize(
    context: click.Context, model: str, method: str, out: Path, dtype: str | None, revision: str | None
) -> None:
    """Quantize a checkpoint.

    MODEL is a folder with a checkpoint, or a Hub id; METHOD such as gptq, awq or hqq; OUT the folder to write, new or empty.
    Further options are the parameters of the method's configuration: --bits 4 --group-size 64 --desc-act. Lists and
    dictionaries are written as JSON. A --dataset may be a text file, whose paragraphs are the texts.
    """
    from unibody.quantize import quantize

    sys.exit(quantize(model, method, out, context.args, dtype, revision))


@click.command()
@click.argument("checkpoint")
@click.argument("out", type=FILE)
@click.option("--dtype", help="The type of the weights, such as bfloat16; by default the checkpoint's.")
@click.option("--revision", help="A branch, tag or commit of the Hub's repository.")
def dequantize(checkpoint: str, out: Path, dtype: str | None, revision: str | None) -> None:
    """Make a plain checkpoint of a quantized one.

    CHECKPOINT is a folder, or a Hub id; OUT the folder to write, new or empty. The weights are those that the packed layers
    compute with: what quantizing has lost does not come back.
    """
    from unibody.quantize import dequantize

    sys.exit(dequantize(checkpoint, out, dtype, revision))


@click.command()
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


@click.command()
@click.argument("model")
@click.argument("prompt")
@loading
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=100, show_default=True)
@click.option(
    "--temperature", type=float, help="With one of these three, tokens are drawn; otherwise the likeliest is taken."
)
@drawing
def run(model: str, prompt: str, **options: object) -> None:
    """Continue a text with a model, writing while it is generated.

    MODEL is a folder with a checkpoint, quantized or not, or a Hub id; PROMPT the text.
    """
    from unibody.running import run

    sys.exit(run(model, prompt, options))


@click.group(no_args_is_help=True)
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


@click.command()
@click.argument("model")
@click.option("--system", help="What the model is told before the conversation begins.")
@loading
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Of an answer.")
@click.option(
    "--temperature",
    type=float,
    help="With one of these three, tokens are drawn; otherwise as the checkpoint's generation_config.json says.",
)
@drawing
def chat(model: str, **options: object) -> None:
    """Talk with a model.

    MODEL is a folder with a checkpoint that was tuned for conversations, or a Hub id. Each line is a message; /clear begins anew,
    /exit ends, Ctrl-C cuts an answer short.
    """
    from unibody.chatting import chat

    sys.exit(chat(model, options))


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--max-shard-size", default="5GB", show_default=True, help="The size of a file of weights, at most.")
def merge(checkpoint: Path, out: Path, max_shard_size: str) -> None:
    """Make one checkpoint of the parts of a sharded one.

    CHECKPOINT is its folder checkpoint-STEP; OUT the folder to write, new or empty.
    """
    from unibody.training.merging import run

    sys.exit(run(checkpoint, out, max_shard_size))


@click.command()
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


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo")
def card(folder: Path, repo: str) -> None:
    """Write the model card of a checkpoint.

    FOLDER is the checkpoint's, whose README.md is written unless there is one; REPO is OWNER/NAME, where it will be.
    """
    from unibody.publishing import write_card

    sys.exit(write_card(folder, repo))


@click.command()
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
    Hydra reads it. Exits with 0; with 1 if a run failed or there is a regression; with 2 if nothing could be done; with 130 if it was
    interrupted, and has written what there was.
    """
    try:
        from unibody.bench.command import bench
    except ModuleNotFoundError as error:
        if error.name not in ("hydra", "omegaconf", "psutil", "sqlalchemy"):
            raise
        click.echo(f"error: {error.name} is not installed: pip install 'unibody[benchmark]'", err=True)
        sys.exit(2)
    sys.exit(bench(overrides, options))


COMMANDS = (quantize, dequantize, inspect, run, chat, export, merge, push, card, bench)
