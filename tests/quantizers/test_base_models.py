"""Base models, whose modules' names lack the prefix that they have beside a head: a checkpoint's patterns and lists mean the same layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers.files import generated

import unibody

pytestmark = pytest.mark.filterwarnings("ignore:.*has weights without a use. lm_head")
DYNAMIC = {  # what gptqmodel's checkpoint has, from the start of the names on
    r"-:model\.layers\.1\.self_attn\.q_proj": {},
    r"+:model\.layers\.0\.mlp": {"bits": 8, "group_size": 64},
    r"model\.layers\.1\.mlp\.down_proj": {"bits": 2, "sym": True, "desc_act": True},
}
NAMED = ["model.layers.0.mlp", "re:model.layers.1.self_attn"]
OPTIONS: dict[str, Any] = {
    "auto-round": unibody.AutoRoundConfig(
        group_size=32, iters=0, layer_config={"model.layers.0.mlp.up_proj": {"bits": 8}}, modules_to_not_convert=NAMED[1:]
    ),
    "bitsandbytes": unibody.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NAMED),
    "compressed-tensors": unibody.CompressedTensorsConfig(
        {"FP8_DYNAMIC": [r"re:model\.layers\.0\..*"], "W8A16": ["model.layers.1.mlp.up_proj"]},
        ignore=[r"re:model\.layers\.0\.self_attn.*", "lm_head"],
    ),
    "fp8": unibody.FineGrainedFP8Config(weight_block_size=(32, 32), modules_to_convert=["model.layers.0.mlp"]),
    "hqq": unibody.HqqConfig(dynamic_config={"model.layers.0.mlp.up_proj": {"nbits": 2}, "q_proj": {"nbits": 8}}),
    "quanto": unibody.QuantoConfig(modules_to_not_convert=NAMED),
    "quark": unibody.QuarkConfig(
        global_quant_config={"weight": {"dtype": "int4", "qscheme": "per_group", "group_size": 32, "symmetric": True}},
        layer_quant_config={"model.layers.0.mlp.*": {"weight": {"dtype": "int8", "qscheme": "per_channel", "ch_axis": 0}}},
        exclude=["lm_head", "model.layers.1.self_attn.*"],
    ),
    "torchao": unibody.TorchAoConfig(
        {"_type": "FqnToConfig", "_version": 1, "_data": {"fqn_to_config": {
            "model.layers.0.mlp.up_proj": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}},
            r"re:model\.layers\.1\.self_attn.*": {"_type": "Float8WeightOnlyConfig", "_version": 2, "_data": {}},
        }}}
    ),
}  # fmt: skip


@torch.no_grad()
def assert_same(whole: Any, base: Any) -> None:
    """The layers of the base model are those of the whole one, and compute the same."""
    expected = {name: type(module).__name__ for name, module in whole.model.named_modules()}
    assert {name: type(module).__name__ for name, module in base.named_modules()} == expected
    ids = inputs.token_ids(2, 8)
    assert torch.equal(base(ids).last_hidden_state, whole.model(ids).last_hidden_state)


def test_gptqmodels_patterns(tmp_path: Path) -> None:
    """Its checkpoint, with patterns from the start of names on: its logits, and opened as a base model, its hidden states."""
    folder = shutil.copytree(fixtures.FOLDER / "gptqmodel/llama-dynamic", tmp_path / "checkpoint")
    values = fixtures.load("gptqmodel/llama-dynamic/values").tensors
    config = json.loads((folder / "config.json").read_text())
    dynamic = config["quantization_config"]["dynamic"]
    config["quantization_config"]["dynamic"] = {**DYNAMIC, "lm_head": dynamic["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    whole = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = whole(values["input_ids"].long()).logits
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    base = unibody.AutoModel.from_pretrained(folder, dtype=torch.float32)
    assert (base.layers[0].mlp.up_proj.bits, base.layers[1].mlp.down_proj.bits) == (8, 2)
    assert_same(whole, base)
    base.save_pretrained(tmp_path / "base")
    assert_same(whole, unibody.AutoModel.from_pretrained(tmp_path / "base", dtype=torch.float32))


@pytest.mark.parametrize("method", OPTIONS)
def test_names_of_the_whole_model(method: str, tmp_path: Path) -> None:
    """A base model is quantized as it is beside a head, and opened from the checkpoint of both."""
    inputs.llama().save_pretrained(tmp_path / "plain")
    load = {"dtype": torch.float32, "quantization_config": OPTIONS[method]}
    whole = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", **load)
    assert_same(whole, unibody.AutoModel.from_pretrained(tmp_path / "plain", **load))
    whole.save_pretrained(tmp_path / "packed")
    assert_same(whole, unibody.AutoModel.from_pretrained(tmp_path / "packed"))


def test_the_generated_file_alone(tmp_path: Path) -> None:
    """GPTQ's patterns, and the name of its blocks, while it quantizes a base model and while it reads what was saved of one."""
    inputs.llama().save_pretrained(tmp_path / "plain")
    gptq, llama = generated("gptq"), generated("llama")
    ids = [torch.arange(24) * 7 % 64, torch.arange(24) * 5 % 64]
    config = gptq.GPTQConfig(
        bits=4, group_size=32, dataset=ids, dynamic=DYNAMIC, block_name_to_quantize="model.layers"
    )
    quantizer = gptq.GptqHfQuantizer(config, pre_quantized=False)
    base = llama.LlamaModel.from_pretrained(tmp_path / "plain", dtype=torch.float32, quantizer=quantizer)
    assert len(gptq.packed_layers(base)) == 13
    assert base.layers[0].mlp.up_proj.bits == 8
    base.save_pretrained(tmp_path / "packed")
    settings = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    quantizer = gptq.GptqHfQuantizer(gptq.GPTQConfig.from_dict(settings))
    again = llama.LlamaModel.from_pretrained(tmp_path / "packed", quantizer=quantizer)
    with torch.no_grad():
        assert torch.equal(again(ids[0][None]).last_hidden_state, base(ids[0][None]).last_hidden_state)
