"""Quantizing while loading: what torch allocates at once is the packed model and one layer's work, never the whole plain model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import unibody
from unibody.generated.registry import QUANTIZERS

OPTIONS: dict[str, dict[str, Any]] = {
    "bitnet": {},
    "bitsandbytes_8bit": {"load_in_8bit": True},
    "bitsandbytes_4bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"},
    "compressed-tensors": {"config_groups": {"W4A16": ["Linear"]}, "ignore": ["lm_head"]},
    "eetq": {},
    "fbgemm_fp8": {},
    "fp8": {},
    "hqq": {},
    "quanto": {"weights": "int4"},
    "quark": {
        "global_quant_config": {"weight": {"dtype": "int4", "qscheme": "per_group", "group_size": 64}},
        "exclude": ["lm_head"],
    },
    "torchao": {"quant_type": "int8_weight_only"},
}
BLOCKS, LARGEST = 8, 512 * 256  # of a plain model in float32, and the weights of its largest layer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    config = unibody.LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=BLOCKS, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    unibody.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def peak_bytes(run: Any, mapped: int, trace: Path) -> tuple[int, Any]:
    """The most bytes that tensors took at once while `run` ran, without those of a mapped file, and what it returned."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    total = most = 0
    for change in (change for _, change in changes if abs(change) != mapped):
        total += change
        most = max(most, total)
    return most, result


def test_every_method_is_here() -> None:
    from quantizers.files import generated

    calibrated = {
        name
        for entry in QUANTIZERS.values()
        for name, quantizer in entry["quantizers"].items()
        if getattr(generated(entry["module"].removeprefix("quantizer_")), quantizer).requires_calibration
    }
    assert OPTIONS.keys() == {name for entry in QUANTIZERS.values() for name in entry["quantizers"]} - calibrated


@pytest.mark.parametrize("name", OPTIONS)
def test_quantizing_while_loading(name: str, plain: Path, tmp_path: Path) -> None:
    config_class = getattr(unibody, QUANTIZERS[name.removesuffix("_8bit").removesuffix("_4bit")]["config"])

    def load() -> Any:
        return unibody.AutoModelForCausalLM.from_pretrained(
            plain, dtype=torch.bfloat16, quantization_config=config_class(**OPTIONS[name])
        )

    whole = (plain / "model.safetensors").stat().st_size
    most, model = peak_bytes(load, whole, tmp_path / "trace.json")
    layers = [layer for layer in model.modules() if hasattr(layer, "stored_tensors")]
    assert len(layers) == 7 * BLOCKS
    held = sum(tensor.nbytes for layer in layers for tensor in layer.buffers() if tensor is not None)
    others = sum(parameter.nbytes for parameter in model.parameters())
    assert most <= held + others + 40 * LARGEST, "one layer's work: ten float32 of its size"
    assert 2 * most < whole
