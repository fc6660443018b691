"""AutoRound's formats and its tuned rounding against auto-round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs, measure
from quantizers.files import generated
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
    config = autoround.AutoRoundConfig(group_size=32, batch_size=4, seqlen=64, nsamples=16, **options)
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
