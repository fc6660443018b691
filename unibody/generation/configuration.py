"""How a model generates: the fields of generation_config.json, under the ecosystem's names."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from unibody.core.hub import read_json
from unibody.core.saving import write_json
from unibody.generation.values import bias_pairs, check_values
from unibody.hub import cached_file
from unibody.publishing import PushToHubMixin

FILE = "generation_config.json"

DEFAULTS: dict[str, Any] = {  # what a field that is None means; the others mean that nothing is done
    "do_sample": False, "use_cache": True, "early_stopping": False, "num_beams": 1, "num_return_sequences": 1,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "length_penalty": 1.0,
    "no_repeat_ngram_size": 0, "min_length": 0, "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4, "max_matching_ngram_size": 2, "cache_implementation": "dynamic",
    "renormalize_logits": False, "remove_invalid_values": False, "output_scores": False, "output_logits": False,
    "return_dict_in_generate": False,
}  # fmt: skip
NEW_TOKENS = 20  # where no length is given

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS = ("early_stopping", "length_penalty")
OUTPUTS = ("output_scores", "output_logits")
WITHOUT_EFFECT = (  # the ecosystem's other fields: kept and written again, they change no token here
    "assistant_ensemble_weight", "assistant_lookbehind", "cache_config", "compile_config", "continuous_batching_config",
    "decoder_start_token_id", "disable_compile", "is_assistant", "low_memory", "prefill_chunk_size", "speculation_type",
    "target_lookbehind", "transformers_version", "_from_model_config",
)  # fmt: skip
LEFT_OUT: dict[str, tuple[Any, ...]] = {  # fields that would change tokens or outputs, and with which values they do not
    "assistant_early_exit": (None,), "constraints": (None,), "diversity_penalty": (None, 0),
    "dola_layers": (None,), "encoder_no_repeat_ngram_size": (None, 0), "encoder_repetition_penalty": (None, 1),
    "force_words_ids": (None,), "guidance_scale": (None, 1), "num_beam_groups": (None, 1),
    "output_attentions": (None, False), "output_hidden_states": (None, False), "penalty_alpha": (None, 0),
    "token_healing": (None, False), "top_h": (None,), "use_mtp": (None, False), "watermarking_config": (None,),
}  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class GenerationConfig(PushToHubMixin):
    """The options of `generate`; None stands for the model's own value, and where that is None too, for the default.

    Keys of a file that no field names are kept as attributes and written back. ValueError: a value makes no sense.
    """

    max_length: int | None = None  # of prompt and text; max_new_tokens goes before it
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    early_stopping: bool | Literal["never"] | None = None  # beams: at the first num_beams texts, by a guess, or surely
    max_time: float | None = None  # seconds
    stop_strings: str | list[str] | None = None

    do_sample: bool | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    use_cache: bool | None = None
    cache_implementation: str | None = None  # "dynamic" or "static"
    max_cache_len: int | None = None  # of a static cache, if it is to be longer than the text

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None

    repetition_penalty: float | None = None
    presence_penalty: float | None = None  # this and the next are OpenAI's and vLLM's, not transformers'
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    bad_words_ids: list[list[int]] | None = None
    sequence_bias: Any = None  # [[ids, bias], …], or {(id, …): bias}, which becomes that
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    exponential_decay_length_penalty: Sequence[float] | None = None  # new tokens before it starts, factor per token
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None

    num_assistant_tokens: int | None = None
    num_assistant_tokens_schedule: str | None = None  # "constant", "heuristic" or "heuristic_transient"
    assistant_confidence_threshold: float | None = None
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None

    output_scores: bool | None = None
    output_logits: bool | None = None
    return_dict_in_generate: bool | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        self.sequence_bias = bias_pairs(self.sequence_bias)
        self.validate()

    @classmethod
    def from_dict(cls, values: dict[str, Any], **options: Any) -> Self:
        """From the keys of a generation_config.json; `options` replace some."""
        for name in options.keys() - field_names() - values.keys():
            raise ValueError(f"GenerationConfig has no field {name!r}: {nearest(name, sorted(field_names()))}")
        values = copy.deepcopy({**values, **options})
        config = cls(**{name: values.pop(name) for name in field_names() & values.keys()})
        vars(config).update(values)
        return config

    @classmethod
    def from_pretrained(
        cls, folder_or_id: str | os.PathLike[str], config_file_name: str = FILE, *, subfolder: str = "", **options: Any
    ) -> Self:
        """What a folder's or a repository's generation_config.json says; `revision`, `token` and the like are for the Hub."""
        hub = ("cache_dir", "force_download", "token", "revision", "local_files_only")
        where = {name: options.pop(name) for name in hub if name in options}
        return cls._read(Path(cached_file(folder_or_id, config_file_name, subfolder=subfolder, **where)), options)

    @classmethod
    def _read(cls, file: Path, options: dict[str, Any]) -> Self:
        try:
            return cls.from_dict(read_json(file), **options)
        except ValueError as error:
            if str(file) in str(error):
                raise
            raise ValueError(f"{file}: {error}; correct it, or load the model with generation_config=…") from error

    @classmethod
    def from_model_config(cls, config: Any) -> Self:
        """What a model's configuration says of generation: its special tokens, and what else old files put there."""
        values = config if isinstance(config, dict) else config.to_dict()
        return cls.from_dict(
            {name: values[name] for name in field_names() & values.keys() if values[name] is not None}
        )

    def save_pretrained(self, folder: str | os.PathLike[str], config_file_name: str = FILE) -> None:
        self.validate()
        write_json(Path(folder, config_file_name), self.to_diff_dict())

    def to_dict(self) -> dict[str, Any]:
        """All fields, and what was kept of a file."""
        return copy.deepcopy(vars(self))

    def to_diff_dict(self) -> dict[str, Any]:
        """What generation_config.json holds: all that is not None."""
        return {name: value for name, value in self.to_dict().items() if value is not None}

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **values: Any) -> dict[str, Any]:
        """Sets what there is, with `defaults_only` where it is None, and returns the others; all or, at a wrong value, nothing."""
        known = {name for name in values if allow_custom_entries or name in vars(self)}
        changed = {name: values[name] for name in known if not defaults_only or getattr(self, name, None) is None}
        if "sequence_bias" in changed:
            changed["sequence_bias"] = bias_pairs(changed["sequence_bias"])
        check_values(changed)
        vars(self).update(changed)
        return {name: value for name, value in values.items() if name not in changed}

    def validate(self, strict: bool = False) -> None:
        """ValueError: a value makes no sense; if `strict`, also if one has no effect beside the others."""
        check_values({name: getattr(self, name) for name in field_names()})
        if strict and (idle := self.without_effect()):
            raise ValueError("; ".join(idle))

    def without_effect(self) -> list[str]:
        """Why options that are set change nothing."""
        reasons = {} if self.do_sample else dict.fromkeys(SAMPLING, "do_sample=True")
        reasons |= {} if (self.num_beams or 1) > 1 else dict.fromkeys(BEAMS, "num_beams above 1")
        reasons |= {} if self.return_dict_in_generate else dict.fromkeys(OUTPUTS, "return_dict_in_generate=True")
        found = {name: getattr(self, name) for name in reasons}
        return [
            f"{name}={value!r} has no effect without {reasons[name]}"
            for name, value in found.items()
            if value not in (None, DEFAULTS.get(name))
        ]

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{name}={value!r}' for name, value in self.to_diff_dict().items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_diff_dict() == other.to_diff_dict()


def field_names() -> set[str]:
    return {field.name for field in dataclasses.fields(GenerationConfig)}


def nearest(name: str, known: Sequence[str]) -> str:
    """A remedy for a misspelt option."""
    found = get_close_matches(name, known, 1)
    return f"did you mean {found[0]}?" if found else "docs/generation.md lists them"
