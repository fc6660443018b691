"""Conversations as text and numbers, by a checkpoint's chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unibody.tokenization.templates import ChatTemplateError, compile_template, render
from unibody.tokenization.tools import describe_tool

Conversation = Sequence[Mapping[str, Any]]


class ChatMixin:
    """`apply_chat_template` of tokenizers."""

    chat_template: str | dict[str, str] | None
    special_tokens_map: Any

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template: the one given (a text, or a name), else the tokenizer's. ChatTemplateError: there is none."""
        own = self.chat_template
        if isinstance(own, dict):
            name = chat_template or ("tool_use" if tools is not None and "tool_use" in own else "default")
            if name in own:
                return own[name]
            if chat_template is None:
                raise ChatTemplateError(f"this tokenizer has several chat templates, name one of {', '.join(own)}")
        if chat_template is not None:
            return chat_template
        if not isinstance(own, str):
            raise ChatTemplateError(
                f"{getattr(self, 'name_or_path', '') or type(self).__name__} has no chat template: pass chat_template=, "
                "or take a checkpoint that was tuned for conversations"
            )
        return own

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, str]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Any:
        """A conversation (`[{"role": "user", "content": …}, …]`) or several, encoded; with `tokenize=False` as text.

        `add_generation_prompt` ends with what begins an answer; `continue_final_message` leaves the last message open. `tools` are
        JSON schemas, or functions whose types and docstring say the same. With `return_dict=False` only the `input_ids` are given.
        Further arguments are variables of the template. ChatTemplateError: there is no template, or it refuses the conversation.
        """
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        chats: list[Any] = list(conversation) if batched else [conversation]
        if continue_final_message and add_generation_prompt:
            raise ChatTemplateError(
                "an answer either begins (add_generation_prompt) or goes on (continue_final_message)"
            )
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ChatTemplateError("return_assistant_tokens_mask needs tokenize=True and return_dict=True")
        template = compile_template(self.get_chat_template(chat_template, tools))
        schemas = (
            None if tools is None else [tool if isinstance(tool, Mapping) else describe_tool(tool) for tool in tools]
        )
        texts, answers = [], []
        for chat in chats:
            check_conversation(chat)
            settings = {
                "tools": schemas,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
                **variables,
            }
            messages = [dict(message) for message in chat]
            text, spans = render(template, {**self.special_tokens_map, "messages": messages, **settings})
            texts.append(cut_final_message(text, chat[-1]) if continue_final_message else text)
            answers.append(spans)
        if not tokenize:
            return texts if batched else texts[0]
        call: Any = self
        encoded = call(
            texts if batched else texts[0], padding=padding, truncation=truncation, max_length=max_length,
            add_special_tokens=False, return_tensors=return_tensors, **(tokenizer_kwargs or {}),
        )  # fmt: skip
        if return_assistant_tokens_mask:
            masks = [mask_spans(encoded, row, spans) for row, spans in enumerate(answers)]
            encoded["assistant_masks"] = masks if batched or return_tensors else masks[0]
            encoded.convert_to_tensors(return_tensors)
        return encoded if return_dict else encoded["input_ids"]


def check_conversation(chat: Any) -> None:
    if not chat:
        raise ChatTemplateError("the conversation is empty: give at least one message")
    for i, message in enumerate(chat):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ChatTemplateError(
                f"message {i} is {message!r}: expected an object with role and content, such as "
                '{"role": "user", "content": "Hello"}'
            )


def cut_final_message(text: str, message: Mapping[str, Any]) -> str:
    """The text up to the end of the last message's content."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        content = next((part.get("text") for part in reversed(content) if "text" in part), None)
    if not isinstance(content, str):
        raise ChatTemplateError("continue_final_message needs a text as the content of the last message")
    place = text.rfind(content.strip())
    if place < 0:
        raise ChatTemplateError(
            "the chat template changes the last message, so that its end is not found to go on from"
        )
    whole = text.startswith(content, place - (len(content) - len(content.lstrip()))) and text[place:].startswith(
        content.lstrip()
    )
    return text[: place + len(content.lstrip() if whole else content.strip())]


def mask_spans(encoded: Any, row: int, spans: list[tuple[int, int]]) -> list[int]:
    """1 for each token of what the assistant says."""
    encoding = encoded[row]
    inside = [
        any(start < end and first < end and start < last for first, last in spans) for start, end in encoding.offsets
    ]
    return [int(found) for found in inside]
