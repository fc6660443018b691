"""pipeline(): the task and the model are found, or it is said what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.pipelines import sentences

import unibody

Checkpoints = Callable[[str], Path]


@pytest.mark.parametrize(
    "name, task",
    [
        ("classes", "text-classification"),
        ("masks", "fill-mask"),
        ("hidden", "feature-extraction"),
        ("entities", "token-classification"),
        ("llama", "text-generation"),
    ],
)
def test_task_is_inferred(checkpoint: Checkpoints, name: str, task: str) -> None:
    """From a folder's config.json, and from the class of an object, also one of the file edition."""
    pipe = unibody.pipeline(model=checkpoint(name))
    assert pipe.task == task
    assert type(pipe) is unibody.pipelines.PIPELINE_REGISTRY.tasks[task].pipeline_class
    assert unibody.pipeline(model=pipe.model, tokenizer=pipe.tokenizer).task == task
    file_class = next(base for base in type(pipe.model).__mro__ if base.__module__.startswith("unibody.generated"))
    bare = file_class.from_pretrained(checkpoint(name))  # type: ignore[attr-defined]
    assert unibody.pipeline(model=bare, tokenizer=pipe.tokenizer).task == task


def test_objects_and_folders(checkpoint: Checkpoints) -> None:
    """An object's tokenizer is the one that lies where it came from."""
    folder = checkpoint("classes")
    model = unibody.AutoModelForSequenceClassification.from_pretrained(folder)
    expected = unibody.pipeline("text-classification", folder)("the cat")
    for options in ({}, {"tokenizer": folder}, {"tokenizer": unibody.AutoTokenizer.from_pretrained(folder)}):
        pipe = unibody.pipeline("text-classification", model, **options)
        assert pipe.model is model
        assert pipe("the cat") == expected
    assert unibody.pipeline("text-classification", str(folder), device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert unibody.pipeline(model=folder, dtype="auto", device=-1, model_kwargs={"attn_implementation": "eager"})(
        "the cat"
    )[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)


def test_half_precision(checkpoint: Checkpoints) -> None:
    """Scores are computed in float32 from what the model gives."""
    texts = sentences(5)
    exact = unibody.pipeline(model=checkpoint("entities"), ignore_labels=[])(texts)
    for dtype in (torch.bfloat16, torch.float16):
        found = unibody.pipeline(model=checkpoint("entities"), dtype=dtype, ignore_labels=[])(texts)
        assert all(type(entity["score"]) is float for entities in found for entity in entities)
        assert [len(entities) for entities in found] == [len(entities) for entities in exact]


def test_configuration_of_ones_own(checkpoint: Checkpoints, tmp_path: Path) -> None:
    """It says other labels; the sizes stay those of the checkpoint."""
    config = unibody.AutoConfig.from_pretrained(checkpoint("classes"))
    config.id2label = {0: "bad", 1: "fair", 2: "good"}
    config.save_pretrained(tmp_path)
    for given in (config, tmp_path):
        found = unibody.pipeline(model=checkpoint("classes"), config=given)("the cat", top_k=None)
        assert {entry["label"] for entry in found} == {"bad", "fair", "good"}
    config.id2label = {0: "one"}
    with pytest.raises(ValueError, match="config has 1 labels, and the model 3"):
        unibody.pipeline(model=checkpoint("classes"), config=config)


def test_saved_and_read_again(checkpoint: Checkpoints, tmp_path: Path) -> None:
    pipe = unibody.pipeline(model=checkpoint("masks"))
    pipe.save_pretrained(tmp_path)
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    assert unibody.pipeline(model=tmp_path)("the [MASK]") == pipe("the [MASK]")


@pytest.mark.parametrize(
    "task, name, message",
    [
        (
            "fill-mask",
            "hidden",
            r"config.json: BertModel has no head for fill-mask, which needs AutoModelForMaskedLM; it is for",
        ),
        ("question-answering", "classes", "BertForSequenceClassification has no head for question-answering"),
        ("text-generation", "masks", "BertForMaskedLM has no head for text-generation"),
        ("text-genration", "llama", "there is no task 'text-genration': use text-generation"),
        ("translation", "llama", "there is no task 'translation': use "),
    ],
)
def test_refused(checkpoint: Checkpoints, task: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unibody.pipeline(task, checkpoint(name))


def test_head_of_an_object(checkpoint: Checkpoints) -> None:
    model = unibody.AutoModel.from_pretrained(checkpoint("hidden"))
    with pytest.raises(ValueError, match="BertModel has no head for fill-mask, which needs AutoModelForMaskedLM"):
        unibody.FillMaskPipeline(model, unibody.AutoTokenizer.from_pretrained(checkpoint("hidden")), task="fill-mask")


def test_what_is_missing(checkpoint: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a task, such as 'text-generation', or a model that says one"):
        unibody.pipeline()
    with pytest.raises(ValueError, match="fill-mask has no model of its own: pass model=, a folder, a repository"):
        unibody.pipeline("fill-mask")
    config = unibody.AutoConfig.from_pretrained(checkpoint("classes"))
    fresh = unibody.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match="the model says not where its tokenizer is: pass tokenizer="):
        unibody.pipeline("text-classification", fresh)
    with pytest.raises(ValueError, match="dtype, device_map and model_kwargs are for loading a model"):
        unibody.pipeline("text-classification", fresh, dtype="bfloat16")
    with pytest.raises(ValueError, match="device 'gpu' is not one of torch: write for example 'cpu'"):
        unibody.pipeline("text-classification", checkpoint("classes"), device="gpu")
    with pytest.raises(ValueError, match=r"device .xpu:0. is not in this machine, which has"):
        unibody.pipeline("text-classification", checkpoint("classes"), device="xpu:0")
    changed = tmp_path / "changed"
    shutil.copytree(checkpoint("classes"), changed)
    values = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**values, "architectures": None}))
    with pytest.raises(
        ValueError, match=r"config.json says architectures .*, which says no task: pass task=, one of "
    ):
        unibody.pipeline(model=changed)
    assert unibody.pipeline("text-classification", changed)("a")[0]["label"].startswith("LABEL_")


def test_registration(checkpoint: Checkpoints) -> None:
    """A class may take the place of another for one call, or a task of its own."""

    class Loud(unibody.TextClassificationPipeline):
        def postprocess(self, *args: Any, **options: Any) -> Any:
            found = super().postprocess(*args, **options)
            return {**found, "label": found["label"].upper() + "!"}

    registry = unibody.PIPELINE_REGISTRY
    pipe = unibody.pipeline("text-classification", checkpoint("classes"), pipeline_class=Loud)
    assert pipe(["a"])[0]["label"].endswith("!")
    for auto in (None, "AutoModelForSequenceClassification", (unibody.AutoModelForSequenceClassification,)):
        unibody.register_pipeline("loud", Loud, pt_model=auto, type="text")
        try:
            assert "loud" in registry.get_supported_tasks()
            assert unibody.pipeline("loud", checkpoint("classes"))(["a"])[0]["label"].endswith("!")
        finally:
            del registry.tasks["loud"]
    with pytest.raises(TypeError, match=r"is not a subclass of unibody\.Pipeline"):
        unibody.register_pipeline("loud", str)
    with pytest.raises(ValueError, match="task 'ner' is another name of 'token-classification'"):
        unibody.register_pipeline("ner", Loud)
    unibody.register_pipeline("loud", Loud, pt_model="os")
    try:
        with pytest.raises(ValueError, match="loud is to be loaded by 'os', which is no auto class of unibody"):
            unibody.pipeline("loud", checkpoint("classes"))
    finally:
        del registry.tasks["loud"]
