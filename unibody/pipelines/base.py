"""The base of all pipelines: from texts to a model's inputs, through the model, to answers that a person can read."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.model_card import model_card
from unibody.pipelines.batching import batches, split
from unibody.pipelines.heads import require_head
from unibody.pipelines.shipping import is_foreign, ship_pipeline
from unibody.publishing import PushToHubMixin

UNLIMITED = 10**9  # tokenizers without a limit say a very large number


class Pipeline(PushToHubMixin, ABC):
    """A model with its tokenizer, called with inputs as people have them.

    A subclass says in four methods how: `_sanitize_parameters` sorts the options of a call into those of the three steps, which
    are `preprocess` (an input to a dictionary of tensors with one row), `_forward` (a batch of these through the model) and
    `postprocess` (the outputs for one input to its answer). Options of the constructor hold for all calls, unless a call has others.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ()  # what reads its models; empty: any
    padding_side: ClassVar[str | None] = None  # of batches; None: the tokenizer's
    single_chunks: ClassVar[bool] = True  # an input is one row for the model

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        task: str = "",
        device: int | str | torch.device | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> None:
        """`device` moves the model there. ValueError: the model has no head for this task, by its class."""
        require_head(model, self.auto_classes, task or type(self).__name__)
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        if device is not None:
            self.model.to(read_device(device))
        self.batch_size, self.num_workers = batch_size or 1, num_workers or 0
        self._preprocess_params, self._forward_params, self._postprocess_params = self._sanitize_parameters(**options)

    @abstractmethod
    def _sanitize_parameters(
        self, *args: Any, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The options of preprocess, of _forward and of postprocess that are given; also checks them."""

    @abstractmethod
    def preprocess(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """What the model reads of one input: tensors with one row by name; other values come back from _forward if it returns them."""

    @abstractmethod
    def _forward(self, model_inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The model's outputs for a batch: a dictionary or named tuple of tensors with a row for each input, and lists."""

    @abstractmethod
    def postprocess(self, model_outputs: Any, *args: Any, **options: Any) -> Any:
        """The answer for one input, from outputs of one row."""

    @classmethod
    def checkpoint_options(cls, folder: Path) -> dict[str, Any]:
        """Options that files of a checkpoint give; those of the caller go before."""
        return {}

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.model.dtype
        return found

    def __call__(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """The answer for one input, the list of answers for a list, or for a generator or dataset an iterator over answers.

        The iterator prepares and computes a batch when its first answer is asked for, and keeps nothing. Options are those of the
        pipeline, and `batch_size`, `num_workers` (processes that prepare numbered inputs) and `progress`, which shows a bar (tqdm).
        ValueError: the list is empty.
        """
        return self._run(inputs, **options)

    def _run(
        self,
        inputs: Any,
        batch_size: int | None = None,
        num_workers: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        steps = self._steps(options)
        if self._is_one(inputs):
            return next(self._stream([inputs], batch_size, 0, steps))
        if isinstance(inputs, list) and not inputs:
            raise ValueError(f"{self._name}: the list of inputs is empty: give at least one")
        answers = self._stream(inputs, batch_size, num_workers, steps)
        if progress:
            answers = show_progress(answers, inputs)
        return list(answers) if isinstance(inputs, list) else answers

    def _is_one(self, inputs: Any) -> bool:
        """Whether this is one input: no list, no iterator and no dataset."""
        if isinstance(inputs, (str, bytes, bytearray, dict, tuple, Tensor)) or inputs is None:
            return True
        if isinstance(inputs, list):
            return False
        return not hasattr(inputs, "__iter__") and not (hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"))

    @property
    def _name(self) -> str:
        return self.task or type(self).__name__

    def _steps(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before, during, after = self._sanitize_parameters(**options)
        return self._preprocess_params | before, self._forward_params | during, self._postprocess_params | after

    def _stream(self, inputs: Any, batch_size: int | None, num_workers: int | None, steps: Any) -> Iterator[Any]:
        before, during, after = steps
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size {size} is not at least 1")
        loader = batches(
            inputs, Preparation(self, before), batch_size=size,
            num_workers=self.num_workers if num_workers is None else num_workers,
            single_chunks=self.single_chunks, padding=self._padding(), side=self._side(),
        )  # fmt: skip
        return self._answers(loader, during, after)

    def _answers(self, loader: Iterable[Any], during: dict[str, Any], after: dict[str, Any]) -> Iterator[Any]:
        parts: list[Any] = []
        for batch, ends in loader:
            outputs = self.forward(batch, **during)
            for part, last in zip(split(outputs, len(ends)), ends, strict=True):
                parts.append(part)
                if last:
                    yield self.postprocess(parts[0] if self.single_chunks else parts, **after)
                    parts = []

    def forward(self, model_inputs: dict[str, Any], **options: Any) -> Any:
        """`_forward` on the model's device, without gradients; what it returns is on the CPU."""
        with torch.no_grad():
            return moved(self._forward(moved(model_inputs, self.device), **options), torch.device("cpu"))

    def _encode(self, *texts: str, **options: Any) -> dict[str, Any]:
        """What the tokenizer makes of a text or a pair, as tensors [1, S]; truncation is to what tokenizer and model read."""
        limit = self._longest()
        if options.get("truncation") and options.get("max_length") is None and limit is not None:
            options["max_length"] = limit
        return dict(self.tokenizer(*texts, return_tensors="pt", **options))

    def _call_model(self, model_inputs: dict[str, Any], without_head: bool = False) -> Any:
        """The model's outputs, or those of the model below its head; of the inputs, it gets those that it takes.

        ValueError: they are longer than the model reads.
        """
        ids, limit = model_inputs.get("input_ids"), getattr(self.config, "longest_text", None)
        if ids is not None and limit is not None and ids.shape[1] > limit:
            raise ValueError(
                f"{self._name}: a text has {ids.shape[1]} tokens, and the model reads {limit}: cut texts with the tokenizer's "
                "truncation=True"
            )
        model = self.model.base_model if without_head else self.model
        accepted = accepted_inputs(model)
        given = {"use_cache": False, **model_inputs}
        return model(**{name: value for name, value in given.items() if name in accepted})

    def _longest(self) -> int | None:
        """The number of tokens that model and tokenizer can read, if there is a limit."""
        config = self.model.config
        limits = [getattr(config, "longest_text", None), getattr(self.tokenizer, "model_max_length", None)]
        return min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)

    def _padding(self) -> dict[str, int | None]:
        found = [getattr(self.tokenizer, "pad_token_id", None), getattr(self.model.config, "pad_token_id", None)]
        token = next((value for value in found if value is not None), None)
        segment = getattr(self.tokenizer, "pad_token_type_id", 0)
        return {"input_ids": token, "token_type_ids": segment, "special_tokens_mask": 1, "p_mask": 1}

    def _side(self) -> str:
        return str(self.padding_side or getattr(self.tokenizer, "padding_side", "right"))

    def _require_text(self, text: Any, what: str = "a text") -> str:
        """The text itself. TypeError: it is something else."""
        if isinstance(text, str):
            return text
        remedy = ": decode it first" if isinstance(text, (bytes, bytearray)) else ""
        raise TypeError(f"{self._name} reads {what} (str), not {type(text).__name__}{remedy}")

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Writes model and tokenizer; a pipeline of one's own also with its code, which `trust_remote_code=True` runs."""
        self.model.save_pretrained(folder, **options)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        ship_pipeline(self, Path(folder))

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        base, trust = getattr(self.model, "name_or_path", ""), ", trust_remote_code=True" if is_foreign(self) else ""
        usage = f'import unibody\n\npipe = unibody.pipeline("{self._name}", model="{repo_id}"{trust})'
        return model_card(repo_id, self.config.to_dict(), type(self.model).__name__, base, tags, usage=usage)


class ChunkPipeline(Pipeline):
    """A pipeline that may make several rows of one input: `preprocess` yields them, `postprocess` gets the list of their outputs."""

    single_chunks = False

    @abstractmethod
    def preprocess(self, inputs: Any, *args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """The chunks of one input, at least one."""


class Preparation:
    """What turns an input into chunks: a pipeline's preprocess with its options, as an object that workers can be sent."""

    def __init__(self, pipeline: Pipeline, options: dict[str, Any]) -> None:
        self.pipeline, self.options = pipeline, options

    def __call__(self, value: Any) -> Iterable[Any]:
        found = self.pipeline.preprocess(value, **self.options)
        return [found] if self.pipeline.single_chunks else found


def accepted_inputs(model: Any) -> set[str]:
    """The names that a model's forward takes, with those that it hands on to the model below its head."""
    parameters = inspect.signature(model.forward).parameters.values()
    names = {parameter.name for parameter in parameters}
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    base = getattr(model, "base_model", model)
    return names | accepted_inputs(base) if hands_on and base is not model else names


def moved(value: Any, device: torch.device) -> Any:
    """The same structure with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if hasattr(value, "_fields"):
        return type(value)(*(moved(part, device) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(part, device) for part in value)
    if isinstance(value, dict):
        parts = {name: moved(part, device) for name, part in value.items()}
        return type(value)(**parts) if hasattr(value, "to_tuple") else parts
    return value


def read_device(device: int | str | torch.device) -> torch.device:
    """The device of a name or number; -1 is the CPU. ValueError: it is neither, or not in this machine."""
    if isinstance(device, int) and device < 0:
        return torch.device("cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is not one of torch: write for example 'cpu', 'cuda:0' or 0") from error
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found.type not in ("cpu", "meta", here.type if here else "cpu"):
        raise ValueError(f"device {device!r} is not in this machine, which has {here.type if here else 'a CPU only'}")
    return found


def show_progress(answers: Iterator[Any], inputs: Any) -> Iterator[Any]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True shows a bar with tqdm, which is not installed: pip install tqdm") from error
    return iter(tqdm(answers, total=len(inputs) if hasattr(inputs, "__len__") else None))
