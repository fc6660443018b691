"""bitsandbytes' checkpoints: its own and transformers' are read with their logits and saved as they were; what stays plain in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file, save_file
from torch import nn

import unibody

bnb, llama = generated("bitsandbytes"), generated("llama")
CHECKPOINTS = sorted(path.name for path in (fixtures.FOLDER / "bitsandbytes").glob("llama-*"))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name: str, tmp_path: Path) -> None:
    """transformers' checkpoint gives its logits; saved, it is the same to the bit; made here, too; dequantized, it computes the same."""
    folder = fixtures.FOLDER / "bitsandbytes" / name
    values = fixtures.load(f"bitsandbytes/{name}/values").tensors
    ids = values["input_ids"].long()
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    config = bnb.BitsAndBytesConfig.from_dict(settings)
    quantizer_class = bnb.Bnb8BitHfQuantizer if config.load_in_8bit else bnb.Bnb4BitHfQuantizer
    quantizer = quantizer_class(config)
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)
    assert len(bnb.packed_layers(model)) == 14
    with torch.no_grad():
        logits = model(ids).logits
    expected = values["logits_eval" if config.load_in_8bit else "logits_train"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert stored.keys() == saved.keys()
    assert all(torch.equal(as_bytes(saved[key]), as_bytes(tensor)) for key, tensor in stored.items())
    inputs.llama().save_pretrained(tmp_path / "full")
    made = llama.LlamaForCausalLM.from_pretrained(
        tmp_path / "full", dtype=torch.float32, quantizer=quantizer_class(config, pre_quantized=False)
    )
    for key, tensor in made.state_dict().items():
        if not config.bnb_4bit_use_double_quant or "absmax" not in key:
            assert torch.equal(as_bytes(tensor), as_bytes(stored[key])), key
    plain = quantizer.dequantize(model)
    assert type(plain.model.layers[0].mlp.up_proj) is nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, values["logits_train"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("block", [32, 128])
def test_other_blocks(block: int, nested: bool, tmp_path: Path) -> None:
    """A checkpoint's own text says how many values share a scale: bitsandbytes' weights to the bit."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    full = inputs.llama(hidden_size=128, intermediate_size=256)
    full.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [key for key in tensors if key.endswith("_proj.weight")]:
        packed, state = quantize_4bit(tensors[name], None, None, block, nested, "nf4", torch.uint8)
        full.get_parameter(name).data.copy_(dequantize_4bit(packed, state))
        tensors |= {name: packed, **{f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = bnb.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
    model = llama.LlamaForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantizer=bnb.Bnb4BitHfQuantizer(config)
    )
    ids = inputs.token_ids(2, 8)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, full(ids).logits)


def test_layers_on_the_cpu_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    places = {"model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"}
    quantizer = bnb.Bnb8BitHfQuantizer(bnb.BitsAndBytesConfig(load_in_8bit=True), pre_quantized=False)
    with pytest.raises(
        ValueError, match=r"leaves model.layers.1, lm_head on the CPU .* llm_int8_enable_fp32_cpu_offload"
    ):
        quantizer.validate_environment(device_map=places)
    config = bnb.BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True)
    quantizer = bnb.Bnb8BitHfQuantizer(config, pre_quantized=False)
    quantizer.validate_environment(device_map=places)
    with torch.device("meta"):
        model = llama.LlamaForCausalLM(llama.LlamaConfig(num_hidden_layers=2))
    quantizer.preprocess_model(model)
    assert {name.split(".")[2] for name in bnb.packed_layers(model)} == {"0"}


def test_modules_that_stay_plain(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    config = bnb.BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["self_attn", "re:.*layers.1"])
    quantizer = bnb.Bnb4BitHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quantizer)
    assert sorted(bnb.packed_layers(model)) == [
        "lm_head",
        *(f"model.layers.0.mlp.{name}_proj" for name in ("down", "gate", "up")),
    ]


@pytest.mark.parametrize("options", [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}])
def test_heads_of_encoders(options: dict[str, Any], tmp_path: Path) -> None:
    """They stay plain, and transformers, which would pack them, opens what is saved, with the same logits."""
    torch.manual_seed(0)
    config = unibody.BertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    unibody.AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path / "plain")
    model = unibody.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, quantization_config=unibody.BitsAndBytesConfig(**options)
    )
    model.save_pretrained(tmp_path / "packed")
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    for layer in theirs.modules():  # train mode computes as here, with weights that are not rounded to bfloat16
        layer.training = type(layer).__name__ == "Linear4bit"
    ids = inputs.token_ids(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-5)
