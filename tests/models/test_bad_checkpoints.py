"""A checkpoint that cannot be read is refused with what was found, where, and what to do; every message exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.zoo import first_case
from safetensors.torch import load_file, save_file

import unibody
from unibody.generated.models import modeling_llama
from unibody.generated.registry import MODELS

CASE = first_case()


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """A good checkpoint, to be spoilt."""
    return shutil.copytree(checkpoint(CASE).folder, tmp_path / "checkpoint")


@pytest.fixture
def sharded(checkpoint, tmp_path) -> Path:
    checkpoint(CASE).load().save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    return tmp_path / "sharded"


def refusal(read: Callable[[], Any], kind: type[Exception], folder: Path) -> str:
    """The text of the error, with FOLDER for the checkpoint's path."""
    with pytest.raises(kind) as caught:
        read()
    assert type(caught.value) is kind
    return str(caught.value).replace(str(folder), "FOLDER")


def change_config(folder: Path, **keys: Any) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**values, **keys}), encoding="utf-8")


def change_index(folder: Path, old: str, new: Any) -> None:
    """The index names `new` where it named the file `old`."""
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    index["weight_map"] = {name: new if shard == old else shard for name, shard in index["weight_map"].items()}
    file.write_text(json.dumps(index), encoding="utf-8")


def load(folder: Path, **options: Any) -> Any:
    return CASE.model_class.from_pretrained(folder, **options)


READERS = {
    "class": lambda folder: CASE.model_class.from_pretrained(folder),
    "configuration": lambda folder: CASE.config_class.from_pretrained(folder),
    "auto class": lambda folder: unibody.AutoModelForCausalLM.from_pretrained(folder),
    "auto configuration": lambda folder: unibody.AutoConfig.from_pretrained(folder),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@every_reader
def test_no_folder(tmp_path, read):
    missing = tmp_path / "nothing" / "here"
    assert refusal(lambda: read(missing), FileNotFoundError, missing) == (
        "FOLDER is not a folder: name a checkpoint's folder or a repository of the Hub"
    )


@every_reader
def test_a_file_instead_of_a_folder(folder, read):
    file = folder / "model.safetensors"
    assert refusal(lambda: read(file), FileNotFoundError, folder) == (
        "FOLDER/model.safetensors is not a folder: name a checkpoint's folder or a repository of the Hub"
    )


@every_reader
def test_no_config(folder, read):
    (folder / "config.json").unlink()
    assert refusal(lambda: read(folder), FileNotFoundError, folder) == (
        "FOLDER/config.json does not exist: a checkpoint is a folder with config.json and *.safetensors"
    )


@every_reader
def test_config_that_is_not_json(folder, read):
    (folder / "config.json").write_text('{"model_type": ', encoding="utf-8")
    assert refusal(lambda: read(folder), ValueError, folder) == (
        "FOLDER/config.json is not valid JSON (Expecting value: line 1 column 16 (char 15)): fetch it again"
    )


@every_reader
def test_config_that_is_not_text(folder, read):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "FOLDER/config.json is not valid JSON (" in refusal(lambda: read(folder), ValueError, folder)


@every_reader
def test_config_that_is_a_list(folder, read):
    (folder / "config.json").write_text("[]", encoding="utf-8")
    assert refusal(lambda: read(folder), ValueError, folder) == (
        "FOLDER/config.json holds list, expected an object of keys and values"
    )


@pytest.mark.parametrize("kind", ["class", "configuration"])
def test_another_model_type(folder, kind):
    change_config(folder, model_type="mistral")
    text = refusal(lambda: READERS[kind](folder), ValueError, folder)
    assert "FOLDER/config.json" in text
    assert "model_type 'mistral'" in text
    assert "LlamaConfig reads 'llama'" in text


@pytest.mark.parametrize("kind", ["auto class", "auto configuration"])
@pytest.mark.parametrize(
    "model_type, found",
    [("mistrl", "says model_type 'mistrl'"), (None, "has no model_type")],
    ids=["misspelt", "none"],
)
def test_unknown_model_type(folder, kind, model_type, found):
    """The error names every model type that can be read, the most similar first."""
    change_config(folder, model_type=model_type)
    text = refusal(lambda: READERS[kind](folder), ValueError, folder)
    start, end = (
        f"FOLDER/config.json {found}; generated files read ",
        ": correct it if it should be one of these; "
        "if not, write modular/models/modular_<name>.py and run `unibody generate`",
    )
    assert text.startswith(start)
    assert text.endswith(end)
    named = text.removeprefix(start).removesuffix(end).split(", ")
    assert sorted(named) == sorted(MODELS)
    assert model_type is None or named[0] == "mistral"


DAMAGES = {
    "cut in the data": lambda data: data[:-100],
    "cut in the header": lambda data: data[:50],
    "cut in the length": lambda data: data[:5],
    "empty": lambda data: b"",
    "longer than it says": lambda data: data + bytes(8),
    "a page instead of a file": lambda data: b"<!DOCTYPE html><html>Not found</html>" * 10,
    "a pointer instead of a file": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights(folder, damage):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    text = refusal(lambda: load(folder), ValueError, folder)
    assert text.startswith("FOLDER/model.safetensors is not a whole safetensors file (")
    assert text.endswith("): fetch it again")


def test_a_damaged_shard_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    text = refusal(lambda: load(sharded), ValueError, sharded)
    assert text.startswith(f"FOLDER/{shard.name} is not a whole safetensors file (")


def test_shapes_that_differ(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(31)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(32, 64)
    save_file(tensors, folder / "model.safetensors")
    assert refusal(lambda: load(folder), ValueError, folder) == (
        "FOLDER: shapes differ from those that config.json implies: "
        "model.layers.0.mlp.up_proj.weight: found [32, 64], expected [64, 32]; "
        "model.norm.weight: found [31], expected [32]"
    )


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/x.safetensors", "/outside.safetensors"])
def test_an_index_that_names_a_file_outside_the_folder(sharded, name):
    """Refused even if the file is there and whole."""
    if name.startswith(".."):
        shutil.copy(sharded / "model-00001-of-00003.safetensors", sharded.parent / "outside.safetensors")
    if name.startswith("sub"):
        (sharded / "sub").mkdir()
        shutil.copy(sharded / "model-00001-of-00003.safetensors", sharded / "sub" / "x.safetensors")
    change_index(sharded, "model-00001-of-00003.safetensors", name)
    assert refusal(lambda: load(sharded), ValueError, sharded) == (
        f"FOLDER/model.safetensors.index.json names {name!r}, which is not in its folder: refused"
    )


def test_an_index_that_names_a_missing_file(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert refusal(lambda: load(sharded), FileNotFoundError, sharded) == (
        "FOLDER/model.safetensors.index.json names model-00002-of-00003.safetensors, which is not there: fetch it"
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}']
)
def test_an_index_that_is_none(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    assert refusal(lambda: load(sharded), ValueError, sharded).startswith("FOLDER/model.safetensors.index.json ")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"never read")
    assert refusal(lambda: load(folder), ValueError, folder) == (
        f"FOLDER holds only pickled weights ({name}), which run code when they are read: "
        "convert them to safetensors, or use a revision of the repository that has them"
    )


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(lambda: load(folder), FileNotFoundError, folder) == (
        "FOLDER holds neither model.safetensors nor model.safetensors.index.json"
    )


def test_pickles_beside_safetensors_are_never_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    load(folder)


def test_quantized_without_a_quantizer(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert refusal(lambda: load(folder), ValueError, folder) == (
        "FOLDER is quantized (gptq): pass the quantizer that reads it, quantizer=…"
    )
    change_config(folder, quantization_config={"load_in_8bit": True})  # historical: without the method's name
    text = refusal(lambda: load(folder), ValueError, folder)
    assert text.startswith("FOLDER is quantized (")
    assert text.endswith("): pass the quantizer that reads it, quantizer=…")


@pytest.mark.parametrize("given", ["float7", "int", "Tensor"])
def test_a_type_that_does_not_exist(folder, given):
    assert refusal(lambda: load(folder, dtype=given), ValueError, folder) == (
        f"dtype {given!r} is not a type for weights: write for example 'float32' or 'bfloat16'"
    )
    change_config(folder, dtype=given)
    assert f"dtype {given!r} is not a type for weights" in refusal(lambda: load(folder), ValueError, folder)


def test_an_attention_that_does_not_exist(folder):
    text = refusal(lambda: load(folder, attn_implementation="flash"), ValueError, folder)
    assert "'flash'" in text
    assert "sdpa, eager" in text or "eager, sdpa" in text


def test_an_activation_that_does_not_exist(folder):
    change_config(folder, hidden_act="swoosh")
    text = refusal(lambda: load(folder), ValueError, folder)
    assert "hidden_act 'swoosh'" in text
    assert "silu" in text


def test_a_rotary_embedding_that_does_not_exist(folder):
    change_config(folder, rope_parameters={"rope_type": "su", "rope_theta": 10000.0})
    assert refusal(lambda: load(folder), ValueError, folder) == (
        "rope_type 'su' is not one of default, linear, dynamic, yarn, llama3"
    )


@pytest.mark.parametrize(
    "rope, lacking",
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}, "low_freq_factor"),
    ],
    ids=["linear", "llama3"],
)
def test_a_rotary_embedding_without_what_it_needs(folder, rope, lacking):
    change_config(folder, rope_parameters={"rope_theta": 10000.0, **rope})
    text = refusal(lambda: load(folder), ValueError, folder)
    assert f"{lacking!r}" in text
    assert f"rope_type {rope['rope_type']!r}" in text


def test_a_cache_that_does_not_exist(folder):
    text = refusal(
        lambda: load(folder).generate(torch.tensor([[5]]), cache_implementation="elastic"), ValueError, folder
    )
    assert "'elastic'" in text
    assert "dynamic" in text
    assert "static" in text


@pytest.mark.parametrize("size", ["5", "GB", "-1GB", "five"])
def test_a_size_that_is_none(folder, tmp_path, size):
    text = refusal(lambda: load(folder).save_pretrained(tmp_path / "saved", max_shard_size=size), ValueError, folder)
    assert text == f"size {size!r} is not understood: write a number of bytes, or for example '5GB' or '200MB'"


def test_nested_without_end(folder: Path) -> None:
    """A file alone, without the library, refuses what Python's own reader gives up on."""
    (folder / "config.json").write_text('{"a":' * 100_000, encoding="utf-8")
    text = refusal(lambda: modeling_llama.LlamaForCausalLM.from_pretrained(folder), ValueError, folder)
    assert text == "FOLDER/config.json is nested too deeply for a configuration or an index: fetch another"
