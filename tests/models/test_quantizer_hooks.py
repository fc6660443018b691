"""`from_pretrained(quantizer=q)` calls whatever hooks `q` has, in order; a small int8 quantizer is enough to load and run."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracle.inputs import token_ids
from oracle.zoo import cases, first_case
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

every_case = pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)


class Recorder:
    """Has every hook, changes nothing, and keeps the calls with what was true at the time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def validate_environment(self, *, dtype, device_map, weights_only) -> None:
        self.calls.append(("validate_environment", (dtype, device_map, weights_only)))

    def update_device_map(self, device_map):
        self.calls.append(("update_device_map", device_map))
        return device_map

    def update_dtype(self, dtype):
        self.calls.append(("update_dtype", dtype))
        return torch.float64

    def preprocess_model(self, *, model, dtype, device_map, loaded_keys) -> None:
        devices = {parameter.device.type for parameter in model.parameters()}
        self.calls.append(("preprocess_model", (devices, dtype, device_map, set(loaded_keys))))

    def update_expected_keys(self, model, expected_keys, loaded_keys):
        self.calls.append(("update_expected_keys", (set(expected_keys), set(loaded_keys))))
        return expected_keys

    def check_quantized_param(self, model, value, name, state_dict) -> bool:
        self.calls.append(("check_quantized_param", (name, state_dict[name] is value)))
        return name == "model.norm.weight"

    def create_quantized_param(self, model, value, name, device, state_dict) -> None:
        self.calls.append(("create_quantized_param", (name, str(device))))
        model.model.norm.weight = nn.Parameter(value.double() * 2)

    def update_missing_keys(self, model, missing_keys, prefix):
        self.calls.append(("update_missing_keys", (sorted(missing_keys), prefix)))
        return [name for name in missing_keys if name != "model.layers.0.input_layernorm.weight"]

    def update_unexpected_keys(self, model, unexpected_keys, prefix):
        self.calls.append(("update_unexpected_keys", (sorted(unexpected_keys), prefix)))
        return []

    def update_missing_keys_after_loading(self, model, missing_keys, prefix):
        on_meta = [name for name, parameter in model.named_parameters() if parameter.is_meta]
        self.calls.append(("update_missing_keys_after_loading", (sorted(missing_keys), on_meta)))
        model.model.layers[0].input_layernorm.weight = nn.Parameter(torch.full((32,), 3.0, dtype=torch.float64))
        return missing_keys

    def postprocess_model(self, *, model, **_):
        self.calls.append(("postprocess_model", (model.training, {p.device.type for p in model.parameters()})))


def test_hooks_are_called_in_order(checkpoint, tmp_path):
    """Environment, type, empty model, expected keys, each tensor, differences, then what stands after loading."""
    case = first_case()
    folder = shutil.copytree(checkpoint(case).folder, tmp_path / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.input_layernorm.weight"]
    save_file({**tensors, "model.norm.scale": torch.ones(1)}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "recorded"}}))

    recorder = Recorder()
    model, info = case.model_class.from_pretrained(
        folder, dtype=torch.float32, quantizer=recorder, output_loading_info=True
    )
    names = [name for name, _ in recorder.calls]
    assert list(dict.fromkeys(names)) == [
        "validate_environment",
        "update_device_map",
        "update_dtype",
        "preprocess_model",
        "update_expected_keys",
        "check_quantized_param",
        "create_quantized_param",
        "update_missing_keys",
        "update_unexpected_keys",
        "update_missing_keys_after_loading",
        "postprocess_model",
    ]
    seen = dict(recorder.calls)
    device_map = {"": "cpu"}
    assert seen["validate_environment"] == (torch.float32, device_map, True)
    assert seen["update_dtype"] == torch.float32
    assert seen["update_device_map"] == device_map
    stored = {*tensors, "model.norm.scale"}
    assert seen["preprocess_model"] == ({"meta"}, torch.float64, device_map, stored)
    assert seen["update_expected_keys"] == ({*tensors, "model.layers.0.input_layernorm.weight"}, stored)
    checked = [value for name, value in recorder.calls if name == "check_quantized_param"]
    assert sorted(name for name, _ in checked) == sorted(stored)
    assert all(same for _, same in checked), "the tensor is the one in the dictionary of all"
    assert seen["create_quantized_param"] == ("model.norm.weight", "cpu")
    assert seen["update_missing_keys"] == (["model.layers.0.input_layernorm.weight"], "model.")
    assert seen["update_unexpected_keys"] == (["model.norm.scale"], "model.")
    assert seen["update_missing_keys_after_loading"] == ([], ["model.layers.0.input_layernorm.weight"])
    assert seen["postprocess_model"] == (False, {"cpu"})

    assert info == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}, "the type that update_dtype gave"
    assert torch.equal(model.model.norm.weight, tensors["model.norm.weight"].double() * 2)
    assert torch.equal(model.model.layers[0].input_layernorm.weight, torch.full((32,), 3.0, dtype=torch.float64))


def test_a_quantizer_without_hooks_changes_nothing(checkpoint):
    written = checkpoint(first_case())
    plain, with_quantizer = written.load(), written.load(quantizer=object())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(with_quantizer.state_dict()[name], tensor), name


class Int8Linear(nn.Module):
    """y = x (q · s)ᵀ + b with q int8 [out, in] and one scale per output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        shape = (linear.out_features, linear.in_features)
        self.register_buffer("weight", torch.empty(shape, dtype=torch.int8, device="meta"))
        self.register_buffer("scale", torch.empty(shape[0], 1, device="meta"))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class Int8:
    """Rounds every projection inside the layers to int8 while loading; also loads what it saved."""

    def preprocess_model(self, *, model, **_) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and ".layers." in name:
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, Int8Linear(module))

    def check_quantized_param(self, model, value, name, state_dict) -> bool:
        module, _, attribute = name.rpartition(".")
        return (
            attribute == "weight" and value.is_floating_point() and isinstance(model.get_submodule(module), Int8Linear)
        )

    def create_quantized_param(self, model, value, name, device, state_dict) -> None:
        module = model.get_submodule(name.removesuffix(".weight"))
        module.scale = (value.abs().amax(1, keepdim=True) / 127).to(device)
        module.weight = (value / module.scale).round().to(device, torch.int8)

    def update_missing_keys(self, model, missing_keys, prefix):
        return [name for name in missing_keys if not name.endswith(".scale")]


@every_case
def test_a_small_quantizer(checkpoint, case):
    """Weights are int8, values differ by rounding and no more, and the quantized model generates."""
    written = checkpoint(case)
    exact, model = written.load(), written.load(quantizer=Int8())
    state = model.state_dict()
    for name, tensor in exact.state_dict().items():
        if ".layers." in name and "proj.weight" in name:
            assert state[name].dtype == torch.int8
            rounded = state[name] * state[name.replace("weight", "scale")]
            assert (rounded - tensor).abs().max() <= tensor.abs().max() / 127 * 0.51
        else:
            assert torch.equal(state[name], tensor), name
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    ids = token_ids()
    with torch.no_grad():
        reference = exact(ids).logits
        difference = (model(ids).logits - reference).std() / reference.std()
    assert 1e-4 < difference < 0.1
    assert model.generate(ids, max_new_tokens=4, min_new_tokens=4).shape == (2, 24)


@every_case
def test_what_a_quantizer_made_is_loaded_again(checkpoint, tmp_path, case):
    """A saved quantized model has int8 tensors and scales; with its quantizer it is the same model, without it refused."""
    model = checkpoint(case).load(quantizer=Int8())
    model.config.quantization_config = {"quant_method": "int8-for-tests"}
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].dtype == torch.int8
    again = case.model_class.from_pretrained(tmp_path, quantizer=Int8())
    ids = token_ids()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    with pytest.raises(ValueError, match=r"is quantized \(int8-for-tests\): pass the quantizer that reads it"):
        case.model_class.from_pretrained(tmp_path)
