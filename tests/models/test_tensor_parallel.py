"""Models over two processes (gloo): the same logits, tokens and files as in one, with half the bytes; plans equal to transformers'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import mixture
from oracle.reference import save
from oracle.zoo import Case, cases
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import unibody
from unibody import model_types
from unibody.generated.registry import MODELS

DECODERS = [case for case in cases() if case.auto_class and getattr(case.config_class, "base_model_tp_plan", None)]
ENCODERS = [case for case in cases("AutoModelForMaskedLM") if case.entry == case.model_type]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes have found, by check."""
    folder = tmp_path_factory.mktemp("split")
    for case in [*DECODERS, *ENCODERS]:
        save(case, "unit", folder / "zoo" / str(case))
    mixture.make(folder / "mixture")
    del model_types._registered["mixture"]
    write_llama(folder / "wide", hidden_size=2, num_attention_heads=2, head_dim=2, intermediate_size=2**22)
    write_llama(folder / "odd", hidden_size=32, intermediate_size=33)
    write_llama(folder / "three", hidden_size=48, num_attention_heads=6, num_key_value_heads=3)
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_key_value_heads": 2}
    biases = {"attention_bias": True, "mlp_bias": True}
    write_llama(folder / "quantized-from", **sizes, **biases, initializer_range=0.08)
    methods = {
        "quantized/int8": unibody.BitsAndBytesConfig(load_in_8bit=True),
        "quantized/fbgemm": unibody.FbgemmFp8Config(),
        "quantized/fp8": unibody.FineGrainedFP8Config(weight_block_size=[64, 64]),
        "refused/hqq": unibody.HqqConfig(nbits=4, group_size=64),
        "refused/nf4": unibody.BitsAndBytesConfig(load_in_4bit=True),
        "refused/blocks": unibody.FineGrainedFP8Config(weight_block_size=[128, 128]),
    }
    for name, method in methods.items():
        model = unibody.LlamaForCausalLM.from_pretrained(folder / "quantized-from", quantization_config=method)
        model.save_pretrained(folder / name)
    launch("split.py", str(folder))
    return [json.loads((folder / f"found-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


def write_llama(folder: Path, **sizes: Any) -> None:
    config = {"vocab_size": 128, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, **sizes}
    model = unibody.LlamaForCausalLM(unibody.LlamaConfig(**config))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)


def launch(program: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]


def both(found: list[dict[str, Any]], name: str) -> list[Any]:
    return [results[name] for results in found]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*DECODERS, *ENCODERS], ids=str)
def test_two_processes_are_one(case: Case, found: Any) -> None:
    """Every class; decoders by the plan that they declare, encoders by one that is given."""
    for zoo in both(found, "zoo"):
        result = zoo[str(case)]
        assert result["difference"] < 2e-4
        assert result["saved"]
        assert result.get("tokens", True)
        assert result["share"] == pytest.approx(0.5)


@pytest.mark.slow
def test_uneven_parts(found: Any) -> None:
    for ties in both(found, "parts_that_are_uneven"):
        for result in ties.values():
            assert result == {"difference": pytest.approx(0, abs=1e-4), "saved": True, "tokens": True}


@pytest.mark.slow
def test_each_process_reads_its_slices(found: Any) -> None:
    """Almost all of this model is split, in pieces of 8 MB: the kernel counts whole pages, which may be of 2 MB."""
    for result in both(found, "bytes_read"):
        assert result["read"] < 0.6
        assert result["held"] < 0.51
        assert result["memory"] < 0.6


@pytest.mark.slow
def test_packed_layers(found: Any) -> None:
    """Equal to the bit where tokens are rounded, each whole; elsewhere as close as sums in another order are."""
    for results in both(found, "packed"):
        assert results.pop("while loading") == 0
        for name in ("int8", "fbgemm"):
            assert results[name]["difference"] == results[name]["layers"] == 0
        for name, result in results.items():
            assert result["share"] < (1 if name == "aqlm/llama" else 0.55), name  # each part has all codebooks
            assert result["saved"], name
            assert result["layers"] < 2e-5, name
            # A sum that differs in the last bit may be rounded to the next code of float8, an eighth away.
            assert result["difference"] < (0.5 if name == "fp8" else 1e-4), name


@pytest.mark.slow
def test_experts(found: Any) -> None:
    for results in both(found, "experts"):
        assert [results[name]["attention"] for name in ("parts", "experts", "both")] == [True, False, True]
        for result in results.values():
            assert result["difference"] < 1e-4
            assert result["gradients"] < 1e-5
            assert result["share"] == pytest.approx(0.5)
            assert result["saved"]
            assert result["tokens"]


@pytest.mark.slow
def test_random_numbers_are_shared(found: Any) -> None:
    for result in both(found, "missing_weights"):
        assert result["same"]
        assert result["drawn"] > 0
    assert both(found, "sampling") == [True, True]


@pytest.mark.slow
def test_the_quantizer_is_asked(found: Any) -> None:
    for result in both(found, "quantizer_is_asked"):
        assert result["calls"] == ["validate_environment", "update_tp_plan", "update_ep_plan", "preprocess_model"]
        assert result["plan"] == ["colwise_gather_output", "colwise_rep"]
        assert not result["written"]
        assert result["difference"] < 1e-5
        assert result["saved"]


@pytest.mark.slow
def test_bfloat16(found: Any) -> None:
    for result in both(found, "bfloat16"):
        assert result["type"] == "torch.bfloat16"
        assert result["saved"]
        assert result["difference"] < 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder", "ValueError: BertForMaskedLM declares no tp_plan: give one of your own"),
        ("style", "ValueError: tp_plan says 'sideways' for layers.*.mlp.up_proj: choose one of colwise, colwise_gather_output"),
        ("layer", "ValueError: tp_plan names layers.*.mlp.up, which is no layer of LlamaForCausalLM"),
        ("kind", 'TypeError: tp_plan is True, expected "auto" or a dictionary of names and styles'),
        ("norm", "ValueError: the plan says 'colwise' for model.norm, which has no matrix to split"),
        (
            "heads",
            "ValueError: model.layers.0.self_attn.k_proj has 3 heads, which 2 processes cannot share: tp_size must divide "
            "num_attention_heads (6) and num_key_value_heads (3); or leave attention whole, "
            "tp_plan={'model.layers.*.self_attn.*': 'replicate'}",
        ),
        ("size", "ValueError: tp_size is 3, and there are 2 processes, which is no multiple of it: start torchrun with "
                 "--nproc_per_node 3, or choose a tp_size that divides 2"),
        ("places", "ValueError: a plan of tensor parallelism says where each weight lies: leave out device and device_map"),
        ("twice", "ValueError: distributed_config says tp_plan and tp_size: leave them out beside it"),
        ("data", "ValueError: gptq quantizes with data, which needs the whole model: quantize in one process"),
        ("act-order", "ValueError: model.layers.0.self_attn.o_proj is packed by gptq and cannot be rowwise"),
        ("hqq", "ValueError: model.layers.0.self_attn.q_proj is packed by hqq and cannot be colwise: no part of its tensors "
                "computes what a part of its rows does"),
        ("nf4", "ValueError: model.layers.0.self_attn.q_proj is packed by bitsandbytes and cannot be colwise"),
        ("blocks", "a part of 128 rows by 2 processes is no multiple of 128"),
        ("experts", "ValueError: LlamaForCausalLM declares no ep_plan"),
        ("routed", "says 'ep_dispatch_experts' for model.layers.0.mlp, and 'grouped_gemm' for none of its weights"),
        ("width", "ValueError: model.layers.0.mlp.gate_proj is [33, 32], and its 33 do not come out even in 2 parts: choose a tp_size "
                  "that divides them, or leave it and its neighbours whole, tp_plan={'model.layers.*.mlp.*': 'replicate'}"),
        ("tied", "model.embed_tokens and lm_head are one weight, which the plan splits as 'embedding_colwise' and as"),
        ("adapter", "adapters go beside whole layers, and these are split over processes: load the model without tp_plan"),
    ],
)  # fmt: skip
def test_refusals(name: str, message: str, found: Any) -> None:
    for result in both(found, "refusals"):
        assert message in result[name]


@pytest.mark.slow
def test_training_takes_the_model_as_it_is(found: Any) -> None:
    for messages in both(found, "trained_otherwise"):
        assert messages == [
            "the model is split over processes: set parallelism_config={'tp_size': 2}",
            "the model was loaded in 1 parts, and parallelism_config says tp_size=2: make them equal",
            "Linear declares no plan by which processes split it: train a model of the library, or leave out parallelism_config",
        ]


@pytest.mark.slow
def test_page(found: Any) -> None:
    results = both(found, "page")
    assert all(result["same"] == 0 for result in results)
    assert results[0]["loss"] == results[1]["loss"] > 0


def test_one_process(checkpoint: Any) -> None:
    """Without torchrun there is nobody to share with."""
    with pytest.raises(ValueError, match="start the program with torchrun, torchrun --nproc_per_node 2"):
        unibody.AutoModelForCausalLM.from_pretrained(checkpoint(DECODERS[0]).folder, tp_plan="auto")
    with pytest.raises(ValueError, match="nothing says how: add tp_plan='auto'"):
        unibody.AutoModelForCausalLM.from_pretrained(checkpoint(DECODERS[0]).folder, device_mesh=object())


@pytest.mark.parametrize("model_type", MODELS)
def test_plans_are_those_of_transformers(model_type: str) -> None:
    entry = MODELS[model_type]
    theirs, ours = CONFIG_MAPPING[model_type], getattr(unibody, entry["config"])
    assert getattr(ours, "base_model_tp_plan", None) == theirs.base_model_tp_plan
    assert getattr(ours, "base_model_ep_plan", None) == theirs.base_model_ep_plan
    for name in entry["classes"].values():
        assert getattr(getattr(unibody, name), "_tp_plan", None) == getattr(transformers, name)._tp_plan


@pytest.mark.parametrize(
    ("options", "settled"),
    [
        ({"tp_size": 2}, ("auto", None)),
        ({"enable_expert_parallel": True}, ({}, "auto")),
        ({"ep_size": 2}, ("auto", "auto")),
        ({"ep_size": 2, "tp_plan": {}, "ep_plan": {"mlp": "grouped_gemm"}}, ({}, {"mlp": "grouped_gemm"})),
        ({}, (None, None)),
    ],
    ids=str,
)
def test_settings(options: dict[str, Any], settled: Any) -> None:
    config = unibody.DistributedConfig(**options)
    assert (config.tp_plan, config.ep_plan) == settled


def test_settings_that_contradict() -> None:
    with pytest.raises(ValueError, match="ep_size is 4 and tp_size 2: the same processes have both, make them equal"):
        unibody.DistributedConfig(tp_size=2, ep_size=4)
    with pytest.raises(ValueError, match="set ep_size"):
        unibody.DistributedConfig(ep_plan="auto")
