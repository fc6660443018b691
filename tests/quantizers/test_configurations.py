"""Methods that read what others quantized: the JSON is transformers', and without layers a checkpoint says that it cannot be run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
import transformers
from oracle.quantization import inputs
from pydantic import TypeAdapter, ValidationError
from quantizers.files import generated

import unibody
from unibody.generated.registry import QUANTIZERS
from unibody.quantize import quantize

CLASSES = {"aqlm": "AqlmConfig", "vptq": "VptqConfig", "higgs": "HiggsConfig", "spqr": "SpQRConfig"}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("aqlm", {}),
        ("aqlm", {"in_group_size": 16, "out_group_size": 2, "num_codebooks": 2, "nbits_per_codebook": 8}),
        ("aqlm", {"linear_weights_not_to_quantize": ["lm_head.weight"]}),
        ("vptq", {}),
        ("vptq", {"config_for_layers": {"a": {"group_num": 1}}, "shared_layer_config": {"b": 1}}),
        ("vptq", {"modules_to_not_convert": ["lm_head"]}),
        ("higgs", {}),
        ("higgs", {"bits": 2, "p": 1, "group_size": 64, "hadamard_size": 1024, "tune_metadata": {"a": 1}}),
        ("higgs", {"modules_to_not_convert": ["lm_head"]}),
        ("spqr", {}),
        ("spqr", {"shapes": {"a": 3}, "modules_to_not_convert": ["lm_head"]}),
    ],
)
def test_configuration(method: str, options: dict[str, Any]) -> None:
    """The same JSON, both ways; the standalone file and the library have the same class."""
    ours, theirs = getattr(unibody, CLASSES[method])(**options), getattr(transformers, CLASSES[method])(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert getattr(generated(method), CLASSES[method]).from_dict(written) == ours
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours
    assert issubclass(type(ours), unibody.QuantizationConfigMixin)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("aqlm", (8, 1, 2, 8, ["a"])),
        ("vptq", (False, {"a": {}}, {"b": 1}, ["c"])),
        ("higgs", (3, 1, ["a"], 1024, 128, {"b": 1})),
        ("spqr", (3, 16, 16, {"a": 1}, ["b"])),
    ],
)
def test_order(method: str, values: tuple[Any, ...]) -> None:
    ours, theirs = (getattr(library, CLASSES[method])(*values) for library in (unibody, transformers))
    assert ours.to_dict() == json.loads(json.dumps(theirs.to_dict()))


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("aqlm", {"in_group_size": "8"}, TypeError, "in_group_size is '8', expected int"),
        ("aqlm", {"linear_weights_not_to_quantize": "a"}, TypeError, r"is 'a', expected list\[str\] \| None"),
        ("vptq", {"enable_proxy_error": True}, ValueError, "proxy errors are of training only: set False"),
        ("vptq", {"config_for_layers": {"a": {"is_indice_packed": False}}}, ValueError, "of a must be True"),
        ("vptq", {"config_for_layers": {"a": 1}}, TypeError, r"is \{'a': 1\}, expected dict\[str, dict"),
        ("higgs", {"bits": 5}, ValueError, "bits is 5, expected one of 2, 3, 4"),
        ("higgs", {"p": 3}, ValueError, "p is 3, expected one of 1, 2"),
        ("higgs", {"group_size": 32}, ValueError, "group_size is 32, expected one of 64, 128, 256"),
        ("higgs", {"hadamard_size": 96}, ValueError, "hadamard_size 96 is no multiple of group_size 256"),
        ("spqr", {"bits": 4}, ValueError, "bits is 4, expected one of 3"),
        ("spqr", {"beta1": 8}, ValueError, "beta1 is 8, expected one of 16"),
        ("spqr", {"beta2": 8}, ValueError, "beta2 is 8, expected one of 16"),
        ("spqr", {"shapes": [1]}, TypeError, r"shapes is \[1\], expected dict"),
    ],
)
def test_refusals(method: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    """What transformers refuses, with the value and what is expected."""
    with pytest.raises(error, match=message):
        getattr(unibody, CLASSES[method])(**options)
    with pytest.raises((TypeError, ValueError)):
        getattr(transformers, CLASSES[method])(**options)


def test_codebooks_of_nothing() -> None:
    with pytest.raises(ValueError, match="num_codebooks is 0, expected a positive number"):
        unibody.AqlmConfig(num_codebooks=0)
    with pytest.raises(ValueError, match="nbits_per_codebook is 17, expected 16 or fewer"):
        unibody.AqlmConfig(nbits_per_codebook=17)


@pytest.mark.parametrize("method", [method for method in CLASSES if not QUANTIZERS[method]["quantizers"]])
def test_checkpoint(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.llama().save_pretrained(tmp_path)
    message = f"quant_method '{method}' has a configuration here and no layers yet: the checkpoint cannot be run"
    assert quantize(str(tmp_path), method, tmp_path / "out", []) == 1
    assert message in capsys.readouterr().err
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"quantization_config": getattr(unibody, CLASSES[method])().to_dict()}))
    with pytest.raises(NotImplementedError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


VALUES = (True, 7, -1.5, "surprise", None, [], ["a"], [3], {}, {"a": 1}, (1, 2), b"a", torch.float32, object())


@pytest.mark.parametrize("method", QUANTIZERS)
def test_types(method: str) -> None:
    """Every field of every configuration refuses each value of another type than its own, by its name and with the value."""
    config_class = getattr(unibody, QUANTIZERS[method]["config"])
    needed: dict[str, dict[str, Any]] = {"gptq": {"bits": 4}, "torchao": {"quant_type": "int8_weight_only"}}
    usual = needed.get(method, {})
    hints, count = get_type_hints(config_class), 0
    for field in dataclasses.fields(config_class):
        allowed = TypeAdapter(hints[field.name], config={"strict": True, "arbitrary_types_allowed": True})
        for value in VALUES:
            if hints[field.name] is Any or is_valid(allowed, value):
                continue
            count += 1
            with pytest.raises(
                (TypeError, ValueError), match=rf": {field.name} is {re.escape(repr(value))}, expected "
            ):
                config_class(**{**usual, field.name: value})
    assert count > 10


def is_valid(allowed: Any, value: Any) -> bool:
    try:
        allowed.validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GPTQConfig", {"bits": 4, "dataset": True}),
        ("GPTQConfig", {"bits": True}),
        ("GPTQConfig", {"bits": 4, "modules_in_block_to_quantize": ["a"]}),
        ("AwqConfig", {"dataset": 3}),
        ("AutoRoundConfig", {"dataset": {}}),
        ("FineGrainedFP8Config", {"weight_block_size": 128}),
        ("FineGrainedFP8Config", {"weight_block_size": (True, 128)}),
        ("BitsAndBytesConfig", {"bnb_4bit_compute_dtype": 16}),
        ("BitsAndBytesConfig", {"bnb_4bit_quant_storage": []}),
    ],
)
def test_ill_typed(name: str, options: dict[str, Any]) -> None:
    """Values inside of others, and those of fields that take several types."""
    field, value = list(options.items())[-1]
    with pytest.raises((TypeError, ValueError), match=rf"{name}: {field} is {re.escape(repr(value))}, expected "):
        getattr(unibody, name)(**options)


FQN = {"_type": "FqnToConfig", "_version": 1, "_data": {"fqn_to_config": {"re:a(": None}}}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CompressedTensorsConfig", {"ignore": ["lm_head", "re:a("]}),
        ("CompressedTensorsConfig", {"config_groups": {"W4A16": ["re:a("]}}),
        ("FineGrainedFP8Config", {"modules_to_not_convert": ["re:a("]}),
        ("FineGrainedFP8Config", {"modules_to_convert": ["re:a("]}),
        ("BitNetQuantConfig", {"modules_to_not_convert": ["re:a("]}),
        ("HqqConfig", {"skip_modules": ["re:a("]}),
        ("BitsAndBytesConfig", {"load_in_8bit": True, "llm_int8_skip_modules": ["re:a("]}),
        ("TorchAoConfig", {"quant_type": {"default": FQN}}),
    ],
)
def test_patterns(name: str, options: dict[str, Any]) -> None:
    """What is no regular expression is refused, by the field that has it; what a text to calibrate with begins with does not matter."""
    field = list(options)[-1]
    message = rf"{name}: {field} has 're:a\(', no regular expression \(missing \), .*\): mend it, or drop 're:'"
    with pytest.raises(ValueError, match=message):
        getattr(unibody, name)(**options)
    with pytest.raises(ValueError, match=message):
        getattr(unibody, name).from_dict(options)
    assert unibody.GPTQConfig(bits=4, dataset=["re:a("]).dataset == ["re:a("]
