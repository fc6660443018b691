"""Tiny checkpoints with their tokenizers, each written once for a process, and each task as we and as transformers have it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers
from oracle.pipelines import ENTITIES, INFERENCE, write_bert, write_llama, write_roberta

import unibody

transformers.logging.set_verbosity_error()


def named(labels: dict[int, str]) -> dict[str, Any]:
    return {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}


WRITERS: dict[str, Callable[[Path], Path]] = {
    "classes": functools.partial(write_bert, class_name="BertForSequenceClassification", num_labels=3),
    "one class": functools.partial(write_bert, class_name="BertForSequenceClassification", num_labels=1),
    "inference": functools.partial(write_bert, class_name="BertForSequenceClassification", **named(INFERENCE)),
    "masks": functools.partial(write_bert, class_name="BertForMaskedLM"),
    "hidden": functools.partial(write_bert, class_name="BertModel"),
    "entities": functools.partial(write_bert, class_name="BertForTokenClassification", **named(ENTITIES)),
    "short entities": functools.partial(
        write_bert, class_name="BertForTokenClassification", longest=16, **named(ENTITIES)
    ),
    "roberta classes": functools.partial(write_roberta, class_name="RobertaForSequenceClassification", num_labels=3),
    "roberta hidden": functools.partial(write_roberta, class_name="RobertaModel"),
    "roberta masks": functools.partial(write_roberta, class_name="RobertaForMaskedLM"),
    "roberta entities": functools.partial(
        write_roberta, class_name="RobertaForTokenClassification", longest=30, **named(ENTITIES)
    ),
    "llama": write_llama,
}


class Pair(NamedTuple):
    """The same task with the same checkpoint."""

    ours: Any
    theirs: Any


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint, by its name above; not to be changed."""

    @functools.cache
    def written(name: str) -> Path:
        return WRITERS[name](tmp_path_factory.mktemp(name.replace(" ", "-")))

    return written


@pytest.fixture(scope="session")
def pair(checkpoint: Callable[[str], Path]) -> Callable[[str, str], Pair]:
    """A task with a checkpoint; not to be changed."""

    @functools.cache
    def made(task: str, name: str) -> Pair:
        folder = checkpoint(name)
        return Pair(unibody.pipeline(task, folder), transformers.pipeline(task, model=str(folder)))

    return made
