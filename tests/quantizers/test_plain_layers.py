"""Layers whose sizes a format cannot hold stay plain, and what is saved says so in the format's own field, by which others read it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import transformers.integrations.bitnet
from oracle.quantization import inputs
from quantizers.files import generated
from transformers.quantizers.quantizers_utils import should_convert_module

import unibody

INT4 = {"weight": {"dtype": "int4", "qscheme": "per_group", "group_size": 128, "ch_axis": -1, "symmetric": True}}
MLP = {f"model.layers.{layer}.mlp.{name}_proj" for layer in (0, 1) for name in ("gate", "up")}
HEAD = {"lm_head"}
ATTENTION = {f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qkvo"}
KEYS = {f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "kv"}
DOWN = {f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)}
# The sizes of a model, the configuration, and the layers that it means and that stay plain.
CASES: dict[str, tuple[dict[str, int], Any, set[str]]] = {
    "W4A16": ({"hidden_size": 192}, unibody.CompressedTensorsConfig({"W4A16": ["Linear"]}), MLP | ATTENTION | HEAD),
    "W4A16-ignore": (
        {"hidden_size": 192},
        unibody.CompressedTensorsConfig({"W4A16": ["Linear"]}, ignore=["lm_head", "model.layers.0.self_attn.q_proj"]),
        (MLP | ATTENTION) - {"model.layers.0.self_attn.q_proj"},
    ),
    "FP8_BLOCK": ({"intermediate_size": 192}, unibody.CompressedTensorsConfig({"FP8_BLOCK": ["re:.*q_proj", "re:.*mlp"]}), MLP | DOWN),
    "fp8": ({"hidden_size": 256}, unibody.FineGrainedFP8Config(), KEYS | HEAD),
    "fp8-only": (
        {"hidden_size": 256}, unibody.FineGrainedFP8Config(modules_to_convert=["q_proj", "k_proj"]),
        {name for name in KEYS if "k_proj" in name},
    ),
    "bitnet": ({"intermediate_size": 130}, unibody.BitNetQuantConfig(), MLP | HEAD),
    "eetq": ({"intermediate_size": 96}, unibody.EetqConfig(), DOWN | HEAD),
    "quark": (
        {"hidden_size": 192}, unibody.QuarkConfig(global_quant_config=INT4, exclude=["*q_proj"]),
        {name for name in MLP | ATTENTION | HEAD if "q_proj" not in name},
    ),
    "torchao": ({"hidden_size": 192}, unibody.TorchAoConfig("int8_weight_only", group_size=128), MLP | ATTENTION),
    "awq": (
        {"hidden_size": 192}, unibody.AwqConfig(group_size=128, dataset=[inputs.token_ids(2, 32).flatten()]), MLP | ATTENTION | HEAD,
    ),
    "hqq": ({"hidden_size": 192}, unibody.HqqConfig(nbits=4, group_size=128), MLP | ATTENTION | HEAD),
}  # fmt: skip
UNREADABLE = {"awq", "eetq", "hqq", "quark"}  # transformers asks for a GPU, or for a package, before it reads these


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What transformers unpacks BitNet's words with is compiled otherwise, for half a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("case", CASES)
def test_saved_configuration(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sizes, config, plain = CASES[case]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "hidden_size": 256, "intermediate_size": 256}
    inputs.llama(**{**heads, **sizes}).save_pretrained(tmp_path / "plain")
    with caplog.at_level(logging.WARNING):
        model = unibody.AutoModelForCausalLM.from_pretrained(
            tmp_path / "plain", quantization_config=config, dtype=torch.float32
        )
    told = plain if case == "quark" else plain - HEAD  # heads go without saying, where nothing else is said
    assert f"{len(told)} linear layers stay plain" in caplog.text
    model.save_pretrained(tmp_path / "packed")
    written = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed"), inputs.token_ids(2, 9)
    for layer in model.modules():
        assert not hasattr(layer, "stored_tensors") or layer.kernel
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(again(ids).logits, logits)
    field = {"compressed-tensors": "ignore", "quark": "exclude"}.get(written["quant_method"], "modules_to_not_convert")
    field = "skip_modules" if case == "hqq" else field
    if case != "torchao":  # the header of its file says of each tensor what it is
        assert plain <= set(written[field])
        assert len(written[field]) == len(set(written[field]))
    if case in UNREADABLE:
        return
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "packed", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    if case.startswith("fp8"):  # without a GPU it reads them dequantized, and inputs are not rounded
        model = model.hf_quantizer.dequantize(model)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=2e-3, atol=2e-3)


def test_heads_that_share_the_embedding(tmp_path: Path) -> None:
    """A head that is no layer of its own is named where the configuration alone would mean it."""
    inputs.llama(tie_word_embeddings=True).save_pretrained(tmp_path / "plain")
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}
    config = unibody.CompressedTensorsConfig({"group": group}, ignore=[])
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
    model.save_pretrained(tmp_path / "packed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    ids = inputs.token_ids(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(model.float()(ids).logits, theirs(ids).logits, rtol=2e-3, atol=2e-3)
    assert generated("compressed_tensors").CompressedTensorsConfig.from_dict(
        model.config.quantization_config
    ).ignore == ["lm_head"]


NAMED = ["self_attn", "layers.0.mlp", "proj", ".*down_proj", "model.layers.1", "re:.*q_proj", "(", "k_proj"]
LISTS: dict[str, Any] = {
    "awq": lambda names: unibody.AwqConfig(
        group_size=64, dataset=[inputs.token_ids(2, 32).flatten()], modules_to_not_convert=names
    ),
    "bitnet": lambda names: unibody.BitNetQuantConfig(modules_to_not_convert=names),
    "bitsandbytes": lambda names: unibody.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=names),
    "eetq": lambda names: unibody.EetqConfig(modules_to_not_convert=names),
    "fbgemm": lambda names: unibody.FbgemmFp8Config(modules_to_not_convert=names),
    "fp8": lambda names: unibody.FineGrainedFP8Config(weight_block_size=(64, 64), modules_to_not_convert=names),
    "hqq": lambda names: unibody.HqqConfig(skip_modules=names),
}


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize("entry", NAMED)
def test_lists_are_saved_as_transformers_reads_them(method: str, entry: str, tmp_path: Path) -> None:
    """What is written leaves the layers plain that are, by transformers' rule, which knows no parts in the middle of names and no `re:`."""
    inputs.llama(hidden_size=128).save_pretrained(tmp_path / "plain")
    load = {"quantization_config": LISTS[method](["lm_head", entry]), "dtype": torch.float32}
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", **load)
    model.save_pretrained(tmp_path / "packed")
    written = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    (field,) = {"modules_to_not_convert", "llm_int8_skip_modules", "skip_modules"} & written.keys()
    for name, module in model.named_modules():
        if hasattr(module, "stored_tensors") or type(module) is torch.nn.Linear:
            assert should_convert_module(name, written[field]) == hasattr(module, "stored_tensors"), name
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    with torch.no_grad():
        assert torch.equal(again(inputs.token_ids(2, 9)).logits, model(inputs.token_ids(2, 9)).logits)
