"""Quantization through the library: editions, auto classes, a method of the user's own, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from oracle.inputs import token_ids
from oracle.quantization import fixtures, inputs
from quantizers.files import generated
from torch import Tensor, nn

import unibody
from unibody import quantization
from unibody.generated.registry import QUANTIZERS

CHECKPOINT = fixtures.FOLDER / "gptqmodel/llama-4bit-g32"


@pytest.fixture
def registered() -> Iterator[None]:
    """Forgets what a test registers."""
    yield
    quantization._configs.clear()
    quantization._quantizers.clear()


def test_library_editions() -> None:
    """One class a name, a subclass of the file's and of the public base; file objects are recognised by what they can do."""
    file = generated("gptq")
    assert issubclass(unibody.GPTQConfig, unibody.QuantizationConfigMixin)
    assert issubclass(unibody.GptqHfQuantizer, unibody.HfQuantizer)
    assert unibody.GPTQConfig.__module__ == "unibody"
    config = unibody.GPTQConfig(bits=4)
    assert isinstance(file.GPTQConfig(bits=4), unibody.QuantizationConfigMixin)
    assert not isinstance(object(), unibody.QuantizationConfigMixin)
    assert not isinstance(file.GPTQConfig(bits=4), unibody.HfQuantizer)
    assert config == file.GPTQConfig(bits=4) != file.GPTQConfig(bits=8)
    assert pickle.loads(pickle.dumps(config)) == config


def test_configuration_as_json(tmp_path: Path) -> None:
    config = unibody.GPTQConfig(bits=8, group_size=64)
    assert config.to_diff_dict() == {"quant_method": "gptq", "bits": 8, "group_size": 64}
    config.to_json_file(tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == config.to_dict()
    assert config.update(group_size=128, other=1) == {"other": 1}
    assert config.group_size == 128
    again, unused = unibody.GPTQConfig.from_dict(config.to_dict(), return_unused_kwargs=True, bits=4, other=1)
    assert (again.bits, again.group_size, unused) == (4, 128, {"other": 1})
    before = config.to_dict()
    for wrong, message in (
        ({"bits": 5, "group_size": 32}, "bits is 5, expected one of 2, 3, 4, 8"),
        ({"desc_act": "yes"}, "desc_act is 'yes', expected bool"),
        (
            {"checkpoint_format": "gptq_v2"},
            "format 'gptq' and checkpoint_format 'gptq_v2' contradict each other: leave out one",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=f"GPTQConfig: {message}"):
            config.update(**wrong)
        assert config.to_dict() == before, "nothing of it is kept"
    with pytest.warns(UserWarning, match="GPTQConfig keeps keys that change nothing: surprise"):
        assert unibody.GPTQConfig.from_dict({"bits": 4, "surprise": 1}).to_dict()["surprise"] == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BitsAndBytesConfig", {}),
        ("BitsAndBytesConfig", {"load_in_8bit": True, "llm_int8_threshold": 5.0}),
        ("BitsAndBytesConfig", {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}),
        ("BitsAndBytesConfig", {"load_in_4bit": True, "bnb_4bit_quant_storage": "float16"}),
        ("HqqConfig", {}),
        ("HqqConfig", {"nbits": 2}),
        ("HqqConfig", {"skip_modules": ["lm_head", "q_proj"]}),
    ],
)
def test_what_is_not_usual(name: str, options: dict[str, Any]) -> None:
    """transformers' keys and values, where it leaves defaults out; the method is always said."""
    ours, theirs = (getattr(library, name)(**options).to_diff_dict() for library in (unibody, transformers))
    assert ours == {"quant_method": ours["quant_method"], **theirs}
    assert json.loads(getattr(unibody, name)(**options).to_json_string()) == ours


def test_what_every_quantizer_is() -> None:
    """The documented attributes: no package has to be installed; what needs data says so; nothing else can be passed."""
    calibrated = set()
    for method, entry in QUANTIZERS.items():
        needed = {"gptq": {"bits": 4}, "torchao": {"quant_type": "int8_weight_only"}}.get(method, {})
        for quantizer_class in entry["quantizers"].values():
            config = getattr(unibody, entry["config"])(**needed)
            quantizer = getattr(unibody, quantizer_class)(config, modules_to_not_convert=["a"])
            assert quantizer.quantization_config is config or method == "auto-round"
            assert (quantizer.modules_to_not_convert, quantizer.required_packages) == (["a"], None)
            assert quantizer.requires_parameters_quantization
            assert quantizer.is_serializable()
            calibrated |= {method} if quantizer.requires_calibration else set()
            with pytest.raises(TypeError, match=f"{quantizer_class} does not know surprise"):
                getattr(unibody, quantizer_class)(config, surprise=1)
    assert calibrated == {"aqlm", "gptq", "awq", "auto-round"}


def test_a_quantized_checkpoint_loads_by_itself() -> None:
    """The auto class finds the quantizer that config.json names; the user chooses how to run, not what it is."""
    values = fixtures.load("gptqmodel/llama-4bit-g32/values").tensors
    model = unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    assert isinstance(model.hf_quantizer, unibody.GptqHfQuantizer)
    with torch.no_grad():
        found = model(values["input_ids"].long()).logits
    torch.testing.assert_close(found, values["logits"], rtol=1e-4, atol=1e-5)
    with pytest.warns(
        UserWarning, match="quantized already; its own quantization_config goes before yours, except for kernel"
    ):
        again = unibody.AutoModelForCausalLM.from_pretrained(
            CHECKPOINT, dtype=torch.bfloat16, quantization_config=unibody.GPTQConfig(bits=8, kernel="torch")
        )
    assert {layer.kernel for layer in again.modules() if hasattr(layer, "stored_tensors")} == {"torch"}
    assert again.config.quantization_config["bits"] == 4
    with pytest.warns(UserWarning, match="except for kernel"):
        again = unibody.AutoModelForCausalLM.from_pretrained(
            CHECKPOINT,
            dtype=torch.bfloat16,
            quantization_config={"quant_method": "gptq", "bits": 4, "kernel": "torch"},
        )
    assert {layer.kernel for layer in again.modules() if hasattr(layer, "stored_tensors")} == {"torch"}
    with pytest.raises(ValueError, match="is quantized with gptq, and quantization_config asks for quanto"):
        unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT, quantization_config=unibody.QuantoConfig())


def test_what_the_user_leaves_out_is_the_checkpoints() -> None:
    """As in transformers, which goes further: it lets no choice of the user's go before the checkpoint's here."""
    stored = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
    dtypes = {}
    for library, quantizers in (
        (transformers, transformers.quantizers.AutoHfQuantizer),
        (unibody, unibody.AutoHfQuantizer),
    ):
        checkpoint, given = library.BitsAndBytesConfig(**stored), library.BitsAndBytesConfig(load_in_4bit=True)
        with pytest.warns(UserWarning, match="quantization_config"):
            merged = quantizers.merge_quantization_configs(checkpoint, given)
        dtypes[library] = merged.bnb_4bit_compute_dtype
    assert dtypes[unibody] == dtypes[transformers] == torch.bfloat16
    given = unibody.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="float16")
    with pytest.warns(UserWarning, match="except for bnb_4bit_compute_dtype"):
        merged = unibody.AutoHfQuantizer.merge_quantization_configs(unibody.BitsAndBytesConfig(**stored), given)
    assert merged.bnb_4bit_compute_dtype == torch.float16


def test_hooks_that_plan_a_device_map() -> None:
    """What the field's code asks a quantizer before it places a model; there is nothing to change in general."""
    model = unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT)
    quantizer = model.hf_quantizer
    assert quantizer.adjust_max_memory({0: 10, "cpu": "20GB"}) == {0: 10, "cpu": "20GB"}
    assert quantizer.adjust_target_dtype(torch.float16) == torch.float16
    assert quantizer.get_special_dtypes_update(model, torch.float16) == {"lm_head.weight": torch.float16}
    assert quantizer.update_tp_plan(model.config) is quantizer.update_ep_plan(model.config) is model.config
    assert (quantizer.get_cuda_warm_up_factor(), quantizer.is_compileable, quantizer.is_trainable) == (4, False, True)


class HalvesLinear(nn.Module):
    """A linear layer whose weight is stored in float16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        shape = (linear.out_features, linear.in_features)
        self.register_buffer("weight", torch.empty(shape, dtype=torch.float16, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def test_a_method_of_ones_own(registered: None, checkpoint: Any) -> None:
    @unibody.register_quantization_config("halves")
    class HalvesConfig(unibody.QuantizationConfigMixin):
        quant_method = "halves"

        def __init__(self, skip: str = "lm_head") -> None:
            self.skip, self.kernel = skip, None

    @unibody.register_quantizer("halves")
    class HalvesQuantizer(unibody.HfQuantizer):
        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
            for name, module in list(model.named_modules()):
                if isinstance(module, nn.Linear) and self.quantization_config.skip not in name:
                    parent, _, attribute = name.rpartition(".")
                    setattr(model.get_submodule(parent), attribute, HalvesLinear(module))

        def check_quantized_param(self, model: Any, value: Tensor, name: str, state: Any, **_: Any) -> bool:
            return isinstance(model.get_submodule(name.rpartition(".")[0]), HalvesLinear)

        def create_quantized_param(self, model: Any, value: Tensor, name: str, device: Any, state: Any) -> None:
            model.get_submodule(name.rpartition(".")[0]).weight = value.half().to(device)

    plain = unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    full = plain.hf_quantizer.dequantize(plain)
    folder = checkpoint(full)
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, quantization_config=HalvesConfig())
    assert model.model.layers[0].self_attn.q_proj.weight.dtype == torch.float16
    assert model.config.quantization_config == {"quant_method": "halves", "skip": "lm_head"}
    ids = token_ids() % 64
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            if "_proj" in name:
                parameter.copy_(parameter.half())
        assert torch.equal(model(ids).logits, full(ids).logits)
    again = unibody.AutoQuantizationConfig.from_dict({"quant_method": "halves", "skip": "x"})
    assert (type(again), again.skip) == (HalvesConfig, "x")
    with pytest.raises(ValueError, match="the method 'halves' is registered already: choose another name"):
        unibody.register_quantizer("halves")(HalvesQuantizer)
    with pytest.raises(TypeError, match=r"int must be a subclass of unibody\.HfQuantizer"):
        unibody.register_quantizer("whole")(int)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    def save(model: Any) -> Path:
        model.save_pretrained(tmp_path)
        return tmp_path

    return save


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quant_method 'magic' is not known: there are .*gptq"):
        unibody.AutoQuantizationConfig.from_dict({"quant_method": "magic"})
    with pytest.raises(ValueError, match=r"quantization_config has no quant_method: there are .*gptq"):
        unibody.AutoQuantizationConfig.from_dict({"bits": 4})
    with pytest.raises(
        ValueError,
        match="kernel 'cublas' is not one of GPTQLinear's: triton, int8_groups_cpu, int4pack_cuda, int4pack_cpu, int3pack_cpu, int2pack_cpu, torch",
    ):
        unibody.AutoModelForCausalLM.from_pretrained(
            CHECKPOINT, quantizer=unibody.AutoHfQuantizer.from_pretrained(CHECKPOINT, kernel="cublas")
        )
    with pytest.raises(
        RuntimeError,
        match="no kernel can run GPTQLinear 64 x 64: triton: it runs on cuda, not on cpu; leave out kernel='triton'",
    ):
        unibody.AutoModelForCausalLM.from_pretrained(
            CHECKPOINT, quantizer=unibody.AutoHfQuantizer.from_pretrained(CHECKPOINT, kernel="triton")
        )
    with pytest.raises(ValueError, match=r"is quantized \(gptq\): pass the quantizer that reads it"):
        generated("llama").LlamaForCausalLM.from_pretrained(CHECKPOINT)
    assert isinstance(unibody.LlamaForCausalLM.from_pretrained(CHECKPOINT).hf_quantizer, unibody.GptqHfQuantizer)


def test_kernel_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIBODY_KERNEL", "torch")
    model = unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.bfloat16)
    assert {layer.kernel for layer in model.modules() if hasattr(layer, "stored_tensors")} == {"torch"}


def test_the_example(tmp_path: Path) -> None:
    """The method that the example registers quantizes a plain checkpoint and generates."""
    inputs.llama().save_pretrained(tmp_path)
    example = Path(__file__).parents[2] / "examples/custom_quantization.py"
    done = subprocess.run([sys.executable, example, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("14 layers in int8, 73728 bytes\n")
