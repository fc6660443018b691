"""Generation for the library editions of decoders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self, overload

import torch
from torch import Tensor

from unibody.generation.assisted import Assistant, Drafter, PromptLookup, decode_with
from unibody.generation.beams import beam_search
from unibody.generation.configuration import FILE, GenerationConfig
from unibody.generation.outputs import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from unibody.generation.request import Request, make_request, prompt_ids, settle
from unibody.generation.search import search
from unibody.generation.together import each_in_step, in_step
from unibody.hub import locate
from unibody.models import PreTrainedModel
from unibody.tensor_parallel.randomness import draw_alike


class GenerationMixin:
    """`generate` and `stream` with all options of GenerationConfig, for a model whose forward takes and returns a cache."""

    @property
    def generation_config(self) -> GenerationConfig:
        """What holds for `generate` unless a call says otherwise; at first what the model's configuration says."""
        found = vars(self).get("_generation_config")
        if found is None:
            found = GenerationConfig.from_model_config(self.config)  # type: ignore[attr-defined]
            vars(self)["_generation_config"] = found
        return found

    @generation_config.setter
    def generation_config(self, config: GenerationConfig) -> None:
        vars(self)["_generation_config"] = config

    @overload
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Any] | None = None,
        *,
        return_dict_in_generate: Literal[True],
        **options: Any,
    ) -> GenerateDecoderOnlyOutput | GenerateBeamDecoderOnlyOutput: ...

    @overload
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Any] | None = None,
        **options: Any,
    ) -> Tensor: ...

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Any] | None = None,
        *,
        streamer: Any = None,
        synced_gpus: bool | None = None,
        **options: Any,
    ) -> Any:
        """The prompts [B, S] and what follows them [B · num_return_sequences, S + new]; rows that end early are padded.

        Options are the fields of GenerationConfig, which override those of `generation_config` and of the model's, and:
        `input_ids` (a name for `inputs`), `attention_mask` [B, S] (0 where a prompt is padding, on its left),
        `past_key_values` (a cache of the beginning), `assistant_model`, `tokenizer` (for stop strings), `seed`. A `streamer` gets
        the prompts, the tokens of each step, and the end, whatever comes between. With `return_dict_in_generate` the result is a
        named tuple. `synced_gpus` says whether several processes generate in step, None: if each has a part of the weights.
        ValueError: an option is unknown, makes no sense, or does not fit another.
        """
        assistant = options.get("assistant_model")
        request, drafter = self._prepare(
            inputs, generation_config, logits_processor, stopping_criteria, prefix_allowed_tokens_fn, options
        )
        if request.settings.num_beams > 1:
            if streamer is not None:
                raise ValueError("a streamer needs num_beams=1: beams are not texts before the end")
            with in_step(self, synced_gpus):
                found = beam_search(request)
            return found if request.settings.return_dict_in_generate else found.sequences
        steps = [request.input_ids]
        try:
            if streamer is not None:
                streamer.put(request.input_ids.cpu())
            with in_step(self, synced_gpus, assistant):
                for tokens in decode(request, drafter):
                    steps.append(tokens[:, None])
                    if streamer is not None:
                        streamer.put(tokens.cpu())
        finally:
            if streamer is not None:
                streamer.end()
        sequences = torch.cat(steps, 1)
        if not request.settings.return_dict_in_generate:
            return sequences
        return GenerateDecoderOnlyOutput(
            sequences, tuple(request.scores) or None, tuple(request.logits) or None, request.reader.cache
        )

    def stream(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Any] | None = None,
        *,
        synced_gpus: bool | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """The next tokens [B], step by step, each computed when it is asked for; the options are those of `generate`."""
        assistant = options.get("assistant_model")
        request, drafter = self._prepare(
            inputs, generation_config, logits_processor, stopping_criteria, prefix_allowed_tokens_fn, options
        )
        if request.settings.num_beams > 1:
            raise ValueError("stream needs num_beams=1: beams are not texts before the end")
        return each_in_step(self, decode(request, drafter), synced_gpus, assistant)

    def _prepare(
        self,
        inputs: Tensor | None,
        given: GenerationConfig | None,
        processors: Sequence[Any] | None,
        criteria: Sequence[Any] | None,
        allowed: Callable[[int, Tensor], Any] | None,
        options: dict[str, Any],
    ) -> tuple[Request, Drafter | None]:
        names = ("input_ids", "attention_mask", "past_key_values", "assistant_model", "tokenizer", "seed")
        input_ids, mask, cache, assistant, tokenizer, seed = (options.pop(name, None) for name in names)
        if inputs is not None and input_ids is not None:
            raise ValueError("inputs and input_ids are two names of the prompt: give one")
        if (parallelism := getattr(self, "parallelism", None)) is not None:
            draw_alike(parallelism)
        settings = settle(self, given, options)
        ids = prompt_ids(input_ids if inputs is None else inputs, self, settings.bos_token_id)
        request = make_request(
            self, settings, ids, mask, past_key_values=cache, logits_processor=processors or (),
            stopping_criteria=criteria or (), allowed=allowed, tokenizer=tokenizer, seed=seed,
        )  # fmt: skip
        return request, make_drafter(self, request, assistant)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: Sequence[Tensor],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """The score [B, new] of each generated token, if asked as a log-probability; 0 after the end of a beam's text."""
        table = torch.stack(list(scores))  # [new, rows, V]
        table = table.log_softmax(-1) if normalize_logits else table
        if beam_indices is None:
            beam_indices = torch.arange(len(sequences), device=sequences.device)[:, None].expand(-1, len(scores))
        steps = torch.arange(beam_indices.shape[1], device=sequences.device)
        tokens = sequences[:, sequences.shape[1] - beam_indices.shape[1] :]
        found = table[steps, beam_indices.clamp(min=0), tokens]
        return found.masked_fill(beam_indices < 0, 0.0)


def decode(request: Request, drafter: Drafter | None) -> Iterator[Tensor]:
    return search(request) if drafter is None else decode_with(drafter, request)


def make_drafter(model: Any, request: Request, assistant: Any) -> Drafter | None:
    """Who guesses ahead, if the options ask for it. ValueError: it cannot, for these options or this assistant."""
    settings = request.settings
    if assistant is None and settings.prompt_lookup_num_tokens is None:
        return None
    if len(request.input_ids) > 1:
        raise ValueError(
            f"assisted decoding continues one text, and there are {len(request.input_ids)}: one at a time"
        )
    if not settings.use_cache:
        raise ValueError("assisted decoding needs use_cache=True")
    if assistant is None:
        return PromptLookup(settings.prompt_lookup_num_tokens, settings.max_matching_ngram_size)
    sizes = assistant.config.vocab_size, model.config.vocab_size
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"assistant_model has {sizes[0]} tokens and the model {sizes[1]}: they must be the same tokens"
        )
    return Assistant(assistant, request)


class GenerativePreTrainedModel(GenerationMixin, PreTrainedModel):
    """A library edition that generates: its generation_config.json is read and written with its weights."""

    @overload
    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, output_loading_info: Literal[False] = False, **options: Any
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, dict[str, set[str]]]: ...

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Any:
        """As PreTrainedModel's; without `generation_config`, that of the checkpoint, if it has one."""
        folder = locate(folder_or_id, options)
        if generation_config is None and (folder / FILE).is_file():
            generation_config = GenerationConfig.from_pretrained(folder)
        found: Any = super().from_pretrained(folder, **options)
        model = found[0] if isinstance(found, tuple) else found
        model.name_or_path = str(folder_or_id)
        if generation_config is not None:
            model.generation_config = generation_config
        return found

    def save_pretrained(
        self, folder: str | os.PathLike[str], max_shard_size: int | str = "5GB", **options: Any
    ) -> None:
        """As PreTrainedModel's, and generation_config.json, unless an adapter alone is written."""
        self.generation_config.validate()
        super().save_pretrained(folder, max_shard_size, **options)
        if not self._hf_peft_config_loaded and options.get("is_main_process", True):
            self.generation_config.save_pretrained(folder)
