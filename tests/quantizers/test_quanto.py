"""Quanto against optimum-quanto: stored tensors to the bit, outputs, calibrated activations, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optimum.quanto
import pytest
import torch
import transformers
from optimum.quanto import QuantizedModelForCausalLM
from oracle.quantization import fixtures, inputs
from quantizers import files
from quantizers.files import generated
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody

quanto, llama = generated("quanto"), generated("llama")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYERS, ACTIVATIONS = fixtures.load("quanto/layers").tensors, fixtures.load("quanto/activations").tensors


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(quanto.QuantoLinear, quanto.QuantoConfig(**options), weight, bias)


@pytest.mark.parametrize("name", sorted({k.rpartition("/")[0] for k in LAYERS if k.endswith("/output")}))
def test_layer(name: str) -> None:
    kind, dtype, width = name.split("/")
    weight, bias, hidden = (LAYERS[key].to(DTYPES[dtype]) for key in (f"weight/{width}", "bias", f"hidden/{width}"))
    layer = make_layer(weight, bias, weights=kind[1:])
    state = {key.rpartition("/")[2]: tensor for key, tensor in LAYERS.items() if key.startswith(f"{name}/state/")}
    assert layer.state_dict().keys() == state.keys() == {*layer.empty_tensors(), "bias"}
    for key, tensor in layer.state_dict().items():
        assert torch.equal(tensor, state[key]), key
        assert tensor.dtype == state[key].dtype
        assert key == "bias" or tensor.shape == layer.empty_tensors()[key].shape
    if f"{name}/dequantized" in LAYERS:
        assert torch.equal(layer.dequantize(DTYPES[dtype]), LAYERS[f"{name}/dequantized"])
    with torch.no_grad():
        found, expected = layer(hidden), LAYERS[f"{name}/output"]
    # In bfloat16 the reference rounds code · scale before it subtracts the shift; torch's kernel for nibbles, as in its
    # own int4 layer, rounds what the middle code stands for.
    bound = {"qint4": 3e-2, "qint2": 2e-2}.get(kind, 1e-2) if dtype == "bfloat16" else 1e-6
    assert (found - expected).abs().max() <= bound * expected.abs().max()
    is_small = kind == "qint2" and layer.group_size < 128
    assert layer.kernel == ("torch" if dtype == "float32" or kind == "qfloat8" or is_small else f"{kind[1:]}pack_cpu")
    again = make_layer(weight, bias, weights=kind[1:])
    again.load_state_dict(layer.state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items()), "out of its layout, too"


@pytest.mark.parametrize("streamlined", ["streamlined", "every_output"])
@pytest.mark.parametrize("activation", ["qint8", "qfloat8"])
@pytest.mark.parametrize("kind", ["qint8", "qint4", "qfloat8"])
def test_calibrated_activations(kind: str, activation: str, streamlined: str) -> None:
    """The scales that optimum-quanto learns for the first layer, and its outputs where it leaves those as they are."""
    key = f"{kind}/{activation}/{streamlined}"
    weight, bias = ACTIVATIONS["weight/0"], inputs.bias(48)
    model = nn.Sequential(make_layer(weight, bias, weights=kind[1:], activations=activation[1:]))
    with torch.no_grad(), quanto.calibrate(model):
        for sample in ACTIVATIONS["samples"]:
            model(sample)
    layer = model[0]
    torch.testing.assert_close(layer.stored_tensors()["input_scale"], ACTIVATIONS[f"{key}/0/input_scale"])
    if streamlined == "streamlined":
        with torch.no_grad():
            torch.testing.assert_close(model(ACTIVATIONS["hidden"]), ACTIVATIONS[f"{key}/first"], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="activations are not to be rounded"), quanto.calibrate(nn.Sequential()):
        pass


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama-qint4", {"weights": "int4"}),
        ("llama-qint8-activations", {"weights": "int8", "activations": "int8"}),
    ],
)
def test_checkpoint(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """optimum-quanto's checkpoint gives its logits; saved, it is the same to the bit, and optimum-quanto reads it."""
    folder = fixtures.FOLDER / "quanto" / name
    values = fixtures.load(f"quanto/{name}/values").tensors
    ids = values["input_ids"].long()
    quantizer = quanto.QuantoHfQuantizer(quanto.QuantoConfig(**options))
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)
    with torch.no_grad():
        logits = model(ids).logits
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert saved.keys() == stored.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in stored.items())
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, logits)
    if "activations" not in options:  # optimum-quanto does not store which outputs it rounds, and reads them all so
        theirs = QuantizedModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(theirs(ids).logits, logits, rtol=1e-4, atol=1e-4)
        plain = quantizer.dequantize(model)
        with torch.no_grad():
            torch.testing.assert_close(plain(ids).logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", ["int8", "int4", "float8"])
def test_optimum_quanto_opens_what_is_saved(weights: str, tmp_path: Path) -> None:
    """In shards too, and with the same logits; transformers itself neither writes such checkpoints nor reads their tensors."""
    inputs.llama().save_pretrained(tmp_path / "plain")
    config = unibody.QuantoConfig(weights=weights)
    model = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, quantization_config=config
    )
    model.save_pretrained(tmp_path / "packed", max_shard_size="50KB")
    assert len(list((tmp_path / "packed").glob("model-*.safetensors"))) > 1
    theirs, ids = QuantizedModelForCausalLM.from_pretrained(tmp_path / "packed"), inputs.token_ids(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=transformers.QuantoConfig(weights=weights)
    )
    with pytest.raises(ValueError, match="is not serializable"):
        plain.save_pretrained(tmp_path / "theirs")


TYPES = {
    "mlp": {"weights": "int4"},
    "re:.*1.self_attn.[qk]_proj": {"weights": "float8"},
    "v_proj": {"weights": "int2"},
}


def test_layers_of_several_types(tmp_path: Path) -> None:
    """What optimum-quanto makes of one model in several goes, to the bit; each reads the other's checkpoint, with the same logits."""
    plain = inputs.llama()
    plain.save_pretrained(tmp_path / "plain")
    patterns = {"qint4": "*mlp*", "qfloat8": ["*1.self_attn.q*", "*1.self_attn.k*"], "qint2": "*v_proj*"}
    for weights, names in patterns.items():
        optimum.quanto.quantize(plain, weights=getattr(optimum.quanto, weights), include=names)
    optimum.quanto.quantize(plain, weights=optimum.quanto.qint8, include=["*o_proj*", "*0.self_attn.[qk]*"])
    optimum.quanto.freeze(plain)
    QuantizedModelForCausalLM(plain).save_pretrained(tmp_path / "theirs")
    config = unibody.QuantoConfig(layer_config=TYPES)
    made = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, quantization_config=config
    )
    read = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    ids = inputs.token_ids(2, 8)
    for name, model in (("made", made), ("read", read)):
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
            again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / name)
            assert torch.equal(again(ids).logits, model(ids).logits)
            opened = QuantizedModelForCausalLM.from_pretrained(tmp_path / name)
            torch.testing.assert_close(opened(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
        stored, saved = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", name))
        assert saved.keys() == stored.keys()
        assert all(torch.equal(files.as_bytes(saved[key]), files.as_bytes(tensor)) for key, tensor in stored.items())
    with pytest.raises(ValueError, match="layer_config of 'mlp': QuantoConfig: weights is 'int3', expected one of"):
        quanto.QuantoConfig(layer_config={"mlp": {"weights": "int3"}})
    for types in ({"bits": 4}, {"modules_to_not_convert": ["q_proj"]}):
        with pytest.raises(ValueError, match=r"layer_config of 'mlp' is {.*}, expected weights and activations"):
            quanto.QuantoConfig(layer_config={"mlp": types})


def test_quantizing_a_model(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    for name, options in (("llama-qint4", {"weights": "int4"}), ("llama-qint8-activations", {"weights": "int8"})):
        quantizer = quanto.QuantoHfQuantizer(quanto.QuantoConfig(**options), pre_quantized=False)
        model = llama.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantizer=quantizer)
        stored, made = load_file(fixtures.FOLDER / "quanto" / name / "model.safetensors"), model.state_dict()
        assert made.keys() == stored.keys()
        for key, tensor in made.items():
            assert key.endswith(("input_scale", "output_scale")) or torch.equal(tensor, stored[key]), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("kind", ["int8", "float8", "int4", "int2"])
def test_outputs(kind: str, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(batch)
    layer = make_layer(torch.randn(40, 160).to(dtype), torch.randn(40).to(dtype), weights=kind)
    x = torch.randn(2, batch, 160).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, 40), dtype)
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - exact).abs().max() <= bound * exact.abs().max()
    given = x.clone().requires_grad_()
    layer(given).float().sum().backward()
    expected = layer.dequantize(dtype).float().sum(0).expand_as(given)
    assert (given.grad.float() - expected).abs().max() <= 2 * bound * expected.abs().max()


def test_float8_by_its_bits() -> None:
    """All finite numbers of eight bits, subnormal ones and both zeros too."""
    codes = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)
    values = codes.view(torch.float8_e4m3fn)
    assert torch.equal(quanto.widen_float8(values).view(torch.int16), values.to(torch.bfloat16).view(torch.int16))


def test_configuration() -> None:
    config = quanto.QuantoConfig("int4", None, ["lm_head"])
    assert (config.weights, config.activations, config.modules_to_not_convert) == ("int4", None, ["lm_head"])
    for case in fixtures.load_json("quanto/config"):
        assert quanto.QuantoConfig(**case["arguments"]).to_dict() == case["to_dict"]
    for bad, message in (
        ({"weights": "int3"}, "weights is 'int3', expected one of 'float8', 'int8', 'int4', 'int2'"),
        ({"activations": "int4"}, "activations is 'int4', expected one of None, 'float8', 'int8'"),
        ({"modules_to_not_convert": "lm_head"}, "modules_to_not_convert is 'lm_head'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            quanto.QuantoConfig(**bad)


def test_modules_that_stay_plain(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    config = quanto.QuantoConfig(modules_to_not_convert=["mlp"])
    quantizer = quanto.QuantoHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quantizer)
    packed = set(quanto.packed_layers(model))
    assert packed == {"lm_head", *(f"model.layers.{i}.self_attn.{n}_proj" for i in (0, 1) for n in "qkvo")}
