"""Conversations through chat templates: the same text and numbers as transformers', and nothing a template should not do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from transformers.utils import get_json_schema

import unibody
from tokenization.conftest import Pair
from unibody import ChatTemplateError
from unibody.tokenization.tools import describe_tool

CHAT = [
    {"role": "user", "content": "What is <b>the</b> capital of France?"},
    {"role": "assistant", "content": '  Paris, "the city of light".\n'},
    {"role": "user", "content": "And of Spain? 🇪🇸"},
]
SHORT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
ANSWERS = """{% for message in messages %}<{{ message.role }}>
{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}</s>{% endgeneration %}
{%- else %}{{ message.content }}{% endif %}{% endfor %}"""
EVERYTHING = """{{ bos_token }}{% for message in messages %}
    {% if loop.index > 3 %}{% break %}{% endif %}
{{ message['role'] }}: {{ message['content'] | trim }}
{% endfor %}
{{ tools | tojson(indent=2) }}{{ documents[0] | tojson }}{{ mood }}{% if add_generation_prompt %}assistant: {% endif %}"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_generation_prompt": True},
        {"tokenize": False},
        {"return_dict": False},
        {"return_tensors": "pt", "padding": True},
        {"truncation": True, "max_length": 9},
        {"padding": "max_length", "max_length": 99, "tokenizer_kwargs": {"padding_side": "left"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("chat", [CHAT, [CHAT, SHORT]], ids=["one", "batch"])
def test_a_real_template(chat: Any, options: dict[str, Any], pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair("smollm2")
    if options.get("return_tensors") and chat is CHAT:
        assert torch.equal(
            ours.apply_chat_template(chat, **options)["input_ids"],
            theirs.apply_chat_template(chat, **options)["input_ids"],
        )
        return
    found, expected = ours.apply_chat_template(chat, **options), theirs.apply_chat_template(chat, **options)
    if options.get("return_tensors"):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    else:
        assert found == expected if isinstance(found, (str, list)) else dict(found) == dict(expected)


def test_what_templates_use(pair: Callable[[str], Pair]) -> None:
    """Variables, filters, loop controls; white space around blocks is not written."""
    ours, theirs = pair("smollm2")
    options: dict[str, Any] = {
        "chat_template": EVERYTHING, "tools": [{"type": "function", "function": {"name": "<f>", "é": 1}}],
        "documents": [{"title": "T & U", "text": "…"}], "mood": "glad", "add_generation_prompt": True, "tokenize": False,
    }  # fmt: skip
    assert ours.apply_chat_template(CHAT, **options) == theirs.apply_chat_template(CHAT, **options)
    assert "assistant: " in ours.apply_chat_template(CHAT, **options)


@pytest.mark.parametrize("content", ["The answer is", " The answer is ", "a  \n"])
def test_going_on(content: str, pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair("smollm2")
    chat = [*CHAT, {"role": "assistant", "content": content}]
    for template in (None, EVERYTHING.replace("> 3", "> 9").replace("documents[0]", "documents")):
        options: dict[str, Any] = {"continue_final_message": True, "tokenize": False, "chat_template": template}
        assert ours.apply_chat_template(chat, **options) == theirs.apply_chat_template(chat, **options)


@pytest.mark.parametrize("chat", [CHAT, [CHAT, SHORT]], ids=["one", "batch"])
def test_what_the_assistant_says(chat: Any, pair: Callable[[str], Pair]) -> None:
    ours, theirs = pair("smollm2")
    options: dict[str, Any] = {"chat_template": ANSWERS, "return_assistant_tokens_mask": True}
    found, expected = ours.apply_chat_template(chat, **options), theirs.apply_chat_template(chat, **options)
    assert dict(found) == dict(expected)
    masks = found["assistant_masks"] if chat is not CHAT else [found["assistant_masks"]]
    assert 0 < sum(masks[0]) < len(masks[0])


def test_templates_by_name(pair: Callable[[str], Pair], tmp_path: Any) -> None:
    ours = copy.deepcopy(pair("smollm2").ours)
    ours.chat_template = {"default": "plain", "tool_use": "tools", "rag": "documents"}
    assert ours.apply_chat_template(SHORT, tokenize=False) == "plain"
    assert ours.apply_chat_template(SHORT, tokenize=False, tools=[{}]) == "tools"
    assert ours.apply_chat_template(SHORT, tokenize=False, chat_template="rag") == "documents"
    assert ours.apply_chat_template(SHORT, tokenize=False, chat_template="{{ messages | length }}") == "2"
    ours.save_pretrained(tmp_path)
    assert sorted(path.name for path in (tmp_path / "additional_chat_templates").iterdir()) == [
        "rag.jinja",
        "tool_use.jinja",
    ]
    assert unibody.AutoTokenizer.from_pretrained(tmp_path).chat_template == ours.chat_template
    ours.chat_template = {"../../escape": "x"}
    with pytest.raises(ValueError, match=r"cannot be called '\.\./\.\./escape'"):
        ours.save_pretrained(tmp_path)


def weather(
    city: str, days: int = 3, unit: Literal["c", "f"] = "c", tags: list[str] | None = None, level: int | str = 1,
    table: dict[str, float] | None = None, point: tuple[int, str] = (1, ""), exact: bool = False, rest: Any = None,
) -> dict[str, str]:  # fmt: skip
    """Says what the weather
    will be.

    Args:
        city: The city, such as Paris
            or London
        days: For how many days (choices: [1, 2, 3])
        unit: Degrees
        tags: What for
        level: How much
        table: Numbers
        point: Where
        exact: Whether to be exact
        rest: More

    Returns:
        What it will be
    """
    return {}


def test_functions_as_tools(pair: Callable[[str], Pair]) -> None:
    assert describe_tool(weather) == get_json_schema(weather)
    ours, theirs = pair("smollm2")
    options: dict[str, Any] = {"tools": [weather], "chat_template": "{{ tools | tojson }}", "tokenize": False}
    assert ours.apply_chat_template(SHORT, **options) == theirs.apply_chat_template(SHORT, **options)

    def silent(a: int) -> None: ...
    def untyped(a) -> None:  # type: ignore[no-untyped-def]
        """Does."""

    def unsaid(a: int) -> None:
        """Does."""

    for function, message in (
        (silent, "silent has no docstring"),
        (untyped, "argument a of untyped has no type: write for example `a: str`"),
        (unsaid, "the docstring of unsaid does not describe a: add `a: …` below `Args:`"),
    ):
        with pytest.raises(ValueError, match=message):
            describe_tool(function)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "the chat template cannot be read: line 1: Expected an expression"),
        ("{{ raise_exception('no system here') }}", "the chat template refuses this conversation: no system here"),
        (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "access to attribute '__class__' of 'str' object is unsafe",
        ),
        ("{{ messages.append(1) }}", "is not safely callable|access to attribute 'append'"),
        ("{{ messages[0].update({'a': 1}) }}", "is not safely callable|access to attribute 'update'"),
        ("{% include '/etc/passwd' %}", "the chat template cannot be used|no loader"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "is unsafe"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ messages[9].content }}", "has no element 9|is undefined"),
        ("{{ 1 // 0 }}", "the chat template fails on this conversation: ZeroDivisionError"),
    ],
)
def test_templates_that_must_not(template: str, message: str, pair: Callable[[str], Pair]) -> None:
    tokenizer = pair("smollm2").ours
    with pytest.raises(ChatTemplateError, match=message):
        tokenizer.apply_chat_template(SHORT, chat_template=template)
    assert issubclass(ChatTemplateError, unibody.UnibodyError)


def test_conversations_that_are_none(pair: Callable[[str], Pair]) -> None:
    tokenizer = pair("smollm2").ours
    for chat, message in (
        ([], "the conversation is empty"),
        ([{"content": "x"}], "message 0 is .*: expected an object with role and content"),
        (["hello"], "message 0 is|expected an object"),
    ):
        with pytest.raises(ChatTemplateError, match=message):
            tokenizer.apply_chat_template(chat)
    with pytest.raises(ChatTemplateError, match="has no chat template: pass chat_template="):
        pair("minilm").ours.apply_chat_template(SHORT)
    with pytest.raises(ChatTemplateError, match=r"either begins .* or goes on"):
        tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="changes the last message"):
        tokenizer.apply_chat_template(CHAT, chat_template="x", continue_final_message=True)
