"""Chat templates: Jinja in a sandbox. They read their variables, and can neither change them nor reach what lies behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from secrets import token_hex
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from unibody.errors import UnibodyError

MARK = "generation_mark"  # the variable with what stands before and after what the assistant says
FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class ChatTemplateError(UnibodyError, ValueError):
    """A chat template that cannot be used, or does not take this conversation."""


class GenerationBlocks(Extension):
    """`{% generation %}…{% endgeneration %}`: what the assistant says, between two marks."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark", [nodes.Name(MARK, "load")])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, mark: str, caller: Callable[[], str]) -> str:
        return f"{mark}{caller()}{mark}"


@lru_cache(maxsize=32)
def compile_template(text: str) -> jinja2.Template:
    """The template of a text. ChatTemplateError: it is no Jinja."""
    extensions: list[Any] = [GenerationBlocks, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise ChatTemplateError(f"the chat template cannot be read: line {error.lineno}: {error.message}") from error


def render(template: jinja2.Template, variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """The text, and from which to which character the assistant speaks. ChatTemplateError: the template does not take this."""
    mark = token_hex(16)  # nobody can know it, so that no message holds it
    try:
        text = template.render(**{MARK: mark}, **variables)
    except ChatTemplateError:
        raise
    except jinja2.TemplateError as error:
        raise ChatTemplateError(f"the chat template cannot be used on this conversation: {error.message}") from error
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        raise ChatTemplateError(f"the chat template fails on this conversation: {reason}") from error
    pieces, length, places = text.split(mark), 0, []
    for piece in pieces[:-1]:
        length += len(piece)
        places.append(length)
    return "".join(pieces), list(zip(places[::2], places[1::2], strict=True))


def refuse(message: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise ChatTemplateError(f"the chat template refuses this conversation: {message}")


def to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, without the escapes for HTML that Jinja's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
