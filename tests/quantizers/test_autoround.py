"""AutoRound's formats and its tuned rounding against auto-round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs, measure
from quantizers.files import generated, make_layer
from safetensors.torch import load_file
from torch import nn

autoround, llama = generated("autoround"), generated("llama")
ERRORS = fixtures.load("auto-round/errors").tensors
AWQ_SETTINGS = {"bits": 4, "group_size": 32, "sym": False, "packing_format": "auto_round:auto_awq"}


def settings(name: str) -> dict[str, Any]:
    """The configuration in a recorded checkpoint; that of its AWQ file as AutoRound itself would write it."""
    if name == "llama-tuned-awq":
        return AWQ_SETTINGS
    text = (fixtures.FOLDER / f"auto-round/{name}/config.json").read_text(encoding="utf-8")
    return json.loads(text)["quantization_config"]


def read(name: str, folder: Path | None = None, **options: Any) -> Any:
    """The model of a recorded checkpoint, in float32."""
    quantizer = autoround.AutoRoundQuantizer(autoround.AutoRoundConfig.from_dict({**settings(name), **options}))
    folder = folder or fixtures.FOLDER / "auto-round" / name
    return llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)


def quantized(folder: Path, **options: Any) -> Any:
    """The tiny Llama, quantized as the recorded ones were."""
    inputs.llama().save_pretrained(folder)
    settings = {"group_size": 32, "batch_size": 4, "seqlen": 64, "nsamples": 16, **options}
    config = autoround.AutoRoundConfig(**settings)
    quantizer = autoround.AutoRoundQuantizer(config, pre_quantized=False)
    return llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)


@pytest.mark.parametrize("name", ["llama-rtn", "llama-tuned", "llama-tuned-awq"])
def test_checkpoint(name: str, tmp_path: Path) -> None:
    """auto-round's checkpoint gives its logits; saved, it is the same to the bit; dequantized, it computes the same."""
    model = read(name)
    assert len(autoround.packed_layers(model)) == 14
    values = fixtures.load(f"auto-round/{name}/values").tensors
    logits = values.get("logits", fixtures.load("gptqmodel/foreign").tensors.get(f"auto-round/{name}/logits"))
    ids = values["input_ids"].long()
    with torch.no_grad():
        found = model(ids).logits
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    stored = load_file(fixtures.FOLDER / f"auto-round/{name}/model.safetensors")
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == stored.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in stored.items())
    with torch.no_grad():
        assert torch.equal(read(name, tmp_path)(ids).logits, found)
    plain = model.hf_quantizer.dequantize(model)
    assert type(plain.model.layers[0].mlp.up_proj) is nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, found, rtol=1e-5, atol=1e-5)


def test_scales_are_negative_too() -> None:
    scales = [layer.scales for layer in autoround.packed_layers(read("llama-rtn")).values()]
    assert 0.4 < torch.cat([scale.flatten() for scale in scales]).lt(0).float().mean() < 0.6


def test_round_to_nearest(tmp_path: Path) -> None:
    """Without steps and without data, auto-round's tensors to the bit."""
    model = quantized(tmp_path, iters=0)
    model.save_pretrained(tmp_path / "quantized")
    stored = load_file(fixtures.FOLDER / "auto-round/llama-rtn/model.safetensors")
    saved = load_file(tmp_path / "quantized/model.safetensors")
    assert saved.keys() == stored.keys()
    different = [key for key, tensor in stored.items() if not torch.equal(saved[key], tensor)]
    assert not different


@pytest.mark.parametrize("key", ["4/sym", "4/asym", "3/sym", "2/asym"])
def test_errors(key: str, tmp_path: Path) -> None:
    """The error that the quantized blocks in a row leave: no more than auto-round's, and less than round-to-nearest's."""
    bits, _, symmetric = key.partition("/")
    calibration = ERRORS["calibration"].long()
    found = []
    for seed in (42, 43, 44):
        options = {"bits": int(bits), "sym": symmetric == "sym", "seed": seed, "dataset": list(calibration)}
        model = quantized(tmp_path, iters=20, **options)
        plain = inputs.llama()
        plain.load_state_dict(model.hf_quantizer.dequantize(model).state_dict())
        found.append(measure.block_errors(inputs.llama(), plain, calibration)[:, 1])
    mine, theirs = torch.stack(found).mean(0), ERRORS[f"{key}/20"].mean(0)[:, 1]
    print(key, mine, theirs, mine / theirs)
    assert (mine <= 1.02 * theirs).all()
    assert (mine < ERRORS[f"{key}/0"][0, :, 1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("options", [{"bits": 2}, {"bits": 3}, {"bits": 4, "sym": False}, {"bits": 8}, AWQ_SETTINGS])
def test_outputs(options: dict[str, Any], batch: int, dtype: torch.dtype) -> None:
    """The product with the dequantized weight in float64, as exactly as the type allows, and its gradient."""
    torch.manual_seed(batch)
    config = autoround.AutoRoundConfig(**{**options, "group_size": 32})
    weight, bias = torch.randn(32, 96), torch.randn(32).to(dtype)
    layer, x = make_layer(autoround.AutoRoundLinear, config, weight, bias), torch.randn(2, batch, 96).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, 32), dtype)
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - exact).abs().max() <= bound * exact.abs().max()
    given = x.clone().requires_grad_()
    layer(given).float().sum().backward()
    expected = layer.dequantize(dtype).float().sum(0).expand_as(given)
    assert (given.grad.float() - expected).abs().max() <= 2 * bound * expected.abs().max()


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, a bar that counts the blocks."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tuned(tmp_path)
    assert "quantizing: 100%" in capsys.readouterr().err


def tuned(folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The state of the tiny Llama after a few steps."""
    calibration = list(ERRORS["calibration"].long()[:6])
    return quantized(folder, **{"iters": 3, "dataset": calibration, **options}).state_dict()


def test_parameters_change_the_result(tmp_path: Path) -> None:
    usual = tuned(tmp_path)
    assert all(torch.equal(tensor, usual[name]) for name, tensor in tuned(tmp_path).items())
    for options in (
        {"bits": 8}, {"group_size": 64}, {"sym": False}, {"iters": 0}, {"iters": 4}, {"seqlen": 16}, {"nsamples": 3},
        {"batch_size": 2}, {"lr": 0.01}, {"seed": 7}, {"enable_quanted_input": False},
        {"packing_format": "auto_round:auto_awq", "sym": False}, {"layer_config": {"mlp.up_proj": {"bits": 16}}},
        {"layer_config": {"q_proj": {"bits": 8}}}, {"modules_to_not_convert": ["self_attn"]},
    ):  # fmt: skip
        other = tuned(tmp_path, **options)
        assert other.keys() != usual.keys() or any(
            tensor.shape != usual[name].shape or not torch.equal(tensor, usual[name]) for name, tensor in other.items()
        ), options
    named = tuned(tmp_path, block_name_to_quantize="model.layers")
    assert all(torch.equal(tensor, usual[name]) for name, tensor in named.items())


def test_layers_of_their_own(tmp_path: Path) -> None:
    """What is saved says it under auto-round's name, plain layers and heads included; its own patterns are read."""
    inputs.llama().save_pretrained(tmp_path / "plain")
    options = {"model.layers.0.mlp.up_proj": {"bits": 8, "group_size": 64}, "k_proj": {"bits": 16}}
    config = autoround.AutoRoundConfig(
        group_size=32, iters=0, sym=False, layer_config=options, modules_to_not_convert=["o_proj"]
    )
    quantizer = autoround.AutoRoundQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(tmp_path / "packed")
    written = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    plain = {
        f"model.layers.{i}.self_attn.{name}_proj": {"bits": 16, "data_type": "float"} for i in (0, 1) for name in "ko"
    }
    head = {"lm_head": {"bits": 4, "group_size": 32, "sym": False}}
    assert written["extra_config"] == {**options, **plain, **head}
    assert written["packing_format"] == "auto_round:gptqmodel", "auto-round's own, where codes are not symmetric"
    ids = inputs.token_ids(2, 8)
    for entries in (
        written["extra_config"],
        {**plain, **head, r"model\.layers\.0\..*up_proj.*": {"bits": 8, "group_size": 64}},
    ):
        quantizer = autoround.AutoRoundQuantizer(
            autoround.AutoRoundConfig.from_dict({**written, "extra_config": entries})
        )
        again = llama.LlamaForCausalLM.from_pretrained(tmp_path / "packed", quantizer=quantizer)
        assert again.model.layers[0].mlp.up_proj.bits == 8
        with torch.no_grad():
            assert torch.equal(again(ids).logits, model(ids).logits)


def test_configuration() -> None:
    config = autoround.AutoRoundConfig(3, 64, False, "auto")
    assert (config.bits, config.group_size, config.sym) == (3, 64, False)
    for case in fixtures.load_json("auto-round/config"):
        arguments = {key: value for key, value in case["arguments"].items() if key != "backend"}
        mine = autoround.AutoRoundConfig(**arguments).to_dict()
        assert mine == case["to_dict"] | ({"backend": "auto"} if "backend" in case["arguments"] else {})
    for bad, message in (
        ({"bits": 5}, "bits is 5, expected one of 2, 3, 4, 8"),
        ({"group_size": 0}, "group_size is 0, expected -1"),
        ({"packing_format": "gguf"}, "packing_format is 'gguf', expected one of 'auto_round'"),
        ({"bits": 3, "packing_format": "auto_round:auto_awq"}, "bits is 3, expected 4 with auto_round:auto_awq"),
        ({"iters": -1}, "iters is -1, expected 0 or more"),
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more"),
        ({"layer_config": {"q_proj": {"bits": 7}}}, "bits is 7"),
    ):
        with pytest.raises(ValueError, match=message):
            autoround.AutoRoundConfig(**bad)
    with pytest.warns(UserWarning, match="backend changes nothing"):
        autoround.AutoRoundConfig(backend="ipex")
    assert autoround.AutoRoundConfig(backend="torch").kernel == "torch"
