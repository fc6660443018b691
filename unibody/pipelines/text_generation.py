"""text-generation: what follows a text, or in a conversation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from unibody.pipelines.base import UNLIMITED, Pipeline

DEFAULTS = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}  # where neither call nor checkpoint says


class TextGenerationPipeline(Pipeline):
    """A text with what follows it; of a conversation, a list of `{"role": …, "content": …}`, with the answer.

    Options: `return_full_text` (False: only what is new), `return_tensors` (token ids instead of text), `prefix`, which the model
    reads before a text, `handle_long_generation="hole"`, which cuts the beginning of what is too long, `stop_sequence`,
    `skip_special_tokens`, `clean_up_tokenization_spaces`; for conversations `tools`, `documents`, `continue_final_message` (by
    default if the last message is the assistant's); for the tokenizer `truncation`, `padding`, `max_length`, `add_special_tokens`
    and `tokenizer_encode_kwargs`. All others are those of the model's `generate`, `streamer` and `generation_config` among them.
    Without any, 256 tokens are drawn at temperature 0.7, unless the checkpoint's generation_config.json says something else.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM",)
    padding_side: ClassVar[str | None] = "left"  # what follows is to follow the text, not its padding

    def _sanitize_parameters(
        self,
        return_full_text: bool | None = None,
        return_tensors: bool | None = None,
        prefix: str | None = None,
        handle_long_generation: str | None = None,
        stop_sequence: str | None = None,
        truncation: bool | str | None = None,
        padding: bool | str | None = None,
        max_length: int | None = None,
        add_special_tokens: bool | None = None,
        tokenizer_encode_kwargs: dict[str, Any] | None = None,
        continue_final_message: bool | None = None,
        tools: list[Any] | None = None,
        documents: list[Any] | None = None,
        skip_special_tokens: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        **generation: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if return_tensors and return_full_text is not None:
            raise ValueError("return_full_text is about text, and return_tensors asks for token ids: give one of them")
        if handle_long_generation not in (None, "hole"):
            raise ValueError(f"handle_long_generation {handle_long_generation!r} is neither None nor 'hole'")
        tokenizing = dict(tokenizer_encode_kwargs or {})
        tokenizing |= given(
            {
                "truncation": truncation,
                "padding": padding,
                "add_special_tokens": add_special_tokens,
                "max_length": max_length if truncation or padding else None,
            }
        )
        if max_length is not None:
            generation["max_length"] = max_length
        if stop_sequence is not None:
            generation["stop_strings"] = [self._require_text(stop_sequence, "stop_sequence")]
        before = {
            "prefix": prefix, "handle_long_generation": handle_long_generation, "tokenizing": tokenizing or None,
            "continue_final_message": continue_final_message, "tools": tools, "documents": documents,
            "generation": generation or None,
        }  # fmt: skip
        after = {
            "return_full_text": return_full_text, "return_tensors": return_tensors,
            "continue_final_message": continue_final_message, "skip_special_tokens": skip_special_tokens,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }  # fmt: skip
        return given(before), generation, given(after)

    def _is_one(self, inputs: Any) -> bool:
        return is_chat(inputs) or super()._is_one(inputs)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """For each text or conversation the list of `{"generated_text": …}`, one for each of `num_return_sequences`.

        With `return_tensors`, `{"generated_token_ids": […]}`. Lists, generators and datasets of texts and of conversations go too.
        """
        return super().__call__(inputs, **options)

    def preprocess(
        self,
        inputs: Any,
        prefix: str = "",
        handle_long_generation: str | None = None,
        tokenizing: dict[str, Any] | None = None,
        continue_final_message: bool | None = None,
        tools: list[Any] | None = None,
        documents: list[Any] | None = None,
        generation: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        if is_chat(inputs):
            check_chat(inputs)
            goes_on = continues(inputs, continue_final_message)
            encoded = self.tokenizer.apply_chat_template(
                list(inputs), add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=True,
                return_tensors="pt", **given({"tools": tools, "documents": documents}), **(tokenizing or {}),
            )  # fmt: skip
        else:
            text = prefix + self._require_text(inputs, "a text or a list of messages")
            encoded = self._encode(text, **(tokenizing or {}))
        ids = encoded["input_ids"].long()
        mask = encoded.get("attention_mask", torch.ones_like(ids)).long()
        if ids.shape[1] == 0:
            ids = torch.tensor([[self._first_token()]])
            mask = torch.ones_like(ids)
        if handle_long_generation == "hole":
            ids, mask = (part[:, -self._room(ids.shape[1], generation or {}) :] for part in (ids, mask))
        return {"input_ids": ids, "attention_mask": mask, "prompt": inputs}

    def _first_token(self) -> int:
        """What an empty text begins with. ValueError: nothing does."""
        for source in (getattr(self.model, "generation_config", None), self.model.config, self.tokenizer):
            if (found := getattr(source, "bos_token_id", None)) is not None:
                return int(found)
        raise ValueError(f"{self._name}: the text is empty, and the model has no token that begins a text")

    def _room(self, length: int, generation: dict[str, Any]) -> int:
        """The number of tokens of a prompt that can be kept."""
        options = self._generation(self._forward_params | generation)
        new = options.get("max_new_tokens") or max(int(options.get("max_length", length)) - length, 0)
        limits = [
            getattr(self.tokenizer, "model_max_length", None),
            getattr(self.config, "max_position_embeddings", None),
        ]
        limit = next((int(found) for found in limits if found and found < UNLIMITED), length + new)
        if new >= limit:
            raise ValueError(f"{new} new tokens leave no room for a prompt: the model reads {limit} in all")
        return min(length, limit - new)

    def _generation(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of generate: what is given, and the defaults where neither that nor the checkpoint says anything."""
        stored = options.get("generation_config") or getattr(self.model, "generation_config", None)
        defaults: dict[str, Any] = dict(DEFAULTS)
        if options.get("stop_strings") or getattr(stored, "stop_strings", None):
            defaults["tokenizer"] = self.tokenizer
        if options.get("max_length") is not None or getattr(stored, "max_length", None) is not None:
            defaults.pop("max_new_tokens", None)
        defaults = {name: value for name, value in defaults.items() if getattr(stored, name, None) is None}
        if options.get("do_sample", defaults.get("do_sample", True)) is False:
            defaults.pop("temperature", None)
        return defaults | options

    def _forward(self, model_inputs: dict[str, Any], **generation: Any) -> dict[str, Any]:
        ids, mask = model_inputs["input_ids"], model_inputs["attention_mask"]
        made = self.model.generate(ids, attention_mask=mask, **self._generation(generation))
        made = getattr(made, "sequences", made)  # [B * N, S + new]
        sequences = made.view(len(ids), -1, made.shape[1])  # [B, N, S + new]
        return {"sequences": sequences, "input_ids": ids, "attention_mask": mask, "prompt": model_inputs["prompt"]}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_full_text: bool = True,
        return_tensors: bool = False,
        continue_final_message: bool | None = None,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[dict[str, Any]]:
        prompt, start = model_outputs["prompt"], int(model_outputs["attention_mask"][0].argmax())  # after the padding
        decoding = given({"clean_up_tokenization_spaces": clean_up_tokenization_spaces})
        decoding["skip_special_tokens"] = skip_special_tokens
        before = len(self.tokenizer.decode(model_outputs["input_ids"][0, start:], **decoding))
        answers = []
        for sequence in model_outputs["sequences"][0][:, start:]:
            if return_tensors:
                answers.append({"generated_token_ids": sequence.tolist()})
                continue
            new: Any = self.tokenizer.decode(sequence, **decoding)[before:]
            answers.append({"generated_text": whole(prompt, new, continue_final_message) if return_full_text else new})
        return answers


def given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def is_chat(inputs: Any) -> bool:
    """Whether this is one conversation: a list of messages."""
    return isinstance(inputs, (list, tuple)) and bool(inputs) and isinstance(inputs[0], dict)


def check_chat(messages: Any) -> None:
    """Nothing. ValueError: a message lacks its role or its content."""
    for number, message in enumerate(messages):
        content = isinstance(message, dict) and not message.keys().isdisjoint(("content", "tool_calls"))
        if not content or "role" not in message:
            found = sorted(map(str, message)) if isinstance(message, dict) else type(message).__name__
            raise ValueError(f"message {number} is not a dictionary with 'role' and 'content', but has {found}")


def continues(messages: Any, asked: bool | None) -> bool:
    return bool(messages[-1]["role"] == "assistant") if asked is None else asked


def whole(prompt: Any, new: str, continue_final_message: bool | None) -> Any:
    """The prompt with what follows, as a text or as a conversation; the caller's own messages stay as they are."""
    if isinstance(prompt, str):
        return prompt + new
    messages = list(prompt)
    if continues(prompt, continue_final_message):
        last = messages.pop()
        return [*messages, {**last, "content": last["content"] + new}]
    return [*messages, {"role": "assistant", "content": new}]
