"""The help of `unibody quantize`, which lists the options of the method that is named beside it."""

from __future__ import annotations

import click


class MethodCommand(click.Command):
    """A command with a method among its arguments, whose options are those of the method's configuration."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta["arguments"] = list(args)  # --help ends the parsing before they have names
        return super().parse_args(context, args)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then those of the method, or else the methods."""
        from unibody.generated.registry import QUANTIZERS

        super().format_options(context, formatter)
        methods = [name for name, entry in QUANTIZERS.items() if entry["quantizers"]]
        method = next((word for word in context.meta["arguments"] if word in methods), None)
        if method is None:
            with formatter.section("Methods"):
                formatter.write_text(", ".join(methods))
                formatter.write_text("`unibody quantize METHOD --help` lists the options of one.")
            return
        with formatter.section(f"Options of {method}"):
            formatter.write_dl(describe_options(method))


def describe_options(method: str) -> list[tuple[str, str]]:
    """Each option of a method, with its type and what it is where it is left out."""
    from dataclasses import MISSING

    from unibody.quantize_options import config_fields

    fields, hints = config_fields(method)
    rows = []
    for name, field in fields.items():
        hint = hints[name]
        kind = hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        fate = "required" if usual is MISSING else f"by default {usual}"
        rows.append((f"--{name.replace('_', '-')}", f"{kind}; {fate}"))
    return rows
