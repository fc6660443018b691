"""No parameter is swallowed: each one changes tensors or outputs, or warns, or is refused, or is told in what is saved.

GPTQ's and AutoRound's are gone over in their own tests, by what each should do; AQLM's, whose layers others make, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import inputs
from quantizers.files import as_bytes

import unibody
from unibody.generated.registry import QUANTIZERS

ELSEWHERE = {"aqlm", "auto-round", "gptq"}
DATASET = [[1, 5, 9, 2, 8, 3, 4, 6], [7, 1, 3, 2, 5, 5, 6, 1]]
PLAIN = ["q_proj"]
GROUPS = {"group": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}}
EIGHT = {"group": {"targets": ["Linear"], "weights": {"strategy": "channel"}}}
STATIC = {"num_bits": 8, "type": "float", "strategy": "tensor"}
SPEC = {"weight": {"dtype": "int4", "qscheme": "per_group", "group_size": 32, "symmetric": True}}
OTHER = {"weight": {"dtype": "int8", "qscheme": "per_channel", "ch_axis": 0}}
CACHE = {"*k_proj": {**SPEC, "output_tensors": {"dtype": "fp8_e4m3"}}}
BASE: dict[str, dict[str, Any]] = {
    "awq": {"group_size": 64, "dataset": DATASET},
    "bitsandbytes": {"load_in_4bit": True},
    "compressed-tensors": {"config_groups": GROUPS},
    "quark": {"global_quant_config": SPEC},
    "torchao": {"quant_type": "int8_weight_only"},
}
TOLD = {  # said in the configuration that is saved, and nowhere else
    ("awq", "meta"),
    ("compressed-tensors", "global_compression_ratio"),
}
Other = tuple[dict[str, Any], Any]  # what else is set, and the other value
OTHERS: dict[str, dict[str, Other]] = {
    "awq": {
        "bits": ({}, 3), "group_size": ({}, 32), "zero_point": ({}, False), "version": ({}, "gemv"),
        "backend": ({}, "llm-awq"), "do_fuse": ({"fuse_max_seq_len": 8}, True), "fuse_max_seq_len": ({}, 8),
        "modules_to_fuse": ({}, {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
        "modules_to_not_convert": ({}, PLAIN), "exllama_config": ({}, {"version": 2}), "tokenizer": ({}, "nowhere"),
        "dataset": ({}, [[3, 9, 27, 17, 51, 25, 11, 33]]), "format": ({}, "gemv"), "model_seqlen": ({}, 4),
        "block_name_to_quantize": ({}, "nowhere"), "damp_percent": ({}, 0.2), "desc_act": ({}, True),
        "act_group_aware": ({}, False), "sym": ({}, False), "true_sequential": ({}, False), "meta": ({}, {"a": 1}),
        "module_name_preceding_first_block": ({}, ["a"]), "batch_size": ({}, 2), "pad_token_id": ({}, 0),
        "max_input_length": ({}, 16), "cache_block_outputs": ({}, False), "modules_in_block_to_quantize": ({}, [["a"]]),
    },
    "bitnet": {
        "modules_to_not_convert": ({}, PLAIN), "linear_class": ({}, "autobitlinear"),
        "quantization_mode": ({"linear_class": "autobitlinear"}, "online"), "use_rms_norm": ({}, True),
        "rms_norm_eps": ({"use_rms_norm": True}, 1.0),
    },
    "bitsandbytes": {
        "load_in_8bit": ({"load_in_4bit": False}, True), "load_in_4bit": ({"load_in_4bit": False}, True),
        "llm_int8_threshold": ({"load_in_4bit": False, "load_in_8bit": True}, 0.5),
        "llm_int8_skip_modules": ({}, PLAIN), "llm_int8_enable_fp32_cpu_offload": ({}, 1),
        "llm_int8_has_fp16_weight": ({"load_in_4bit": False, "load_in_8bit": True}, True),
        "bnb_4bit_compute_dtype": ({}, "bfloat16"), "bnb_4bit_quant_type": ({}, "nf4"),
        "bnb_4bit_use_double_quant": ({}, True), "bnb_4bit_quant_storage": ({}, "bfloat16"),
    },
    "compressed-tensors": {
        "config_groups": ({}, {"W8A8": ["Linear"]}), "format": ({"config_groups": EIGHT}, "int-quantized"),
        "quantization_status": ({}, "nowhere"), "kv_cache_scheme": ({}, STATIC), "global_compression_ratio": ({}, 1.5),
        "ignore": ({}, PLAIN), "sparsity_config": ({}, {"format": "sparse-bitmask"}), "run_compressed": ({}, False),
        "dequantize": ({}, True), "use_optimized_inference": ({}, True), "quant_method": ({}, "fp8"),
        "transform_config": ({}, {"config_groups": {"R": {"apply": [{"location": "input"}]}}}),
    },
    "eetq": {"weights": ({}, "int4"), "modules_to_not_convert": ({}, PLAIN)},
    "fbgemm_fp8": {"activation_scale_ub": ({}, 0.5), "modules_to_not_convert": ({}, PLAIN)},
    "fp8": {
        "activation_scheme": ({}, "static"), "weight_block_size": ({}, [64, 64]), "dequantize": ({}, True),
        "modules_to_not_convert": ({}, PLAIN), "modules_to_convert": ({}, PLAIN), "scale_fmt": ({}, "ue8m0"),
        "expert_dtype": ({}, "fp4"),
    },
    "higgs": {
        "bits": ({}, 2), "p": ({}, 1), "modules_to_not_convert": ({}, PLAIN), "hadamard_size": ({}, 1024),
        "group_size": ({}, 128), "tune_metadata": ({}, {"a": 1}),
    },
    "hqq": {
        "nbits": ({}, 2), "group_size": ({}, 32), "view_as_float": ({}, True), "axis": ({}, 0),
        "dynamic_config": ({}, {"self_attn.q_proj": {"nbits": 8, "group_size": 64}}), "skip_modules": ({}, PLAIN),
    },
    "quanto": {
        "weights": ({}, "int4"), "activations": ({}, "int8"), "modules_to_not_convert": ({}, PLAIN),
        "layer_config": ({}, {"q_proj": {"weights": "int4"}}),
    },
    "quark": {
        "global_quant_config": ({}, OTHER), "layer_quant_config": ({}, {"*q_proj": OTHER}),
        "layer_type_quant_config": ({}, {"Linear": OTHER}), "exclude": ({}, PLAIN), "export": ({}, {"pack_method": "order"}),
        "kv_cache_quant_config": ({}, CACHE), "kv_cache_post_rope": ({"kv_cache_quant_config": CACHE}, True),
        "algo_config": ({}, [{"name": "gptq"}]), "softmax_quant_spec": ({}, {"dtype": "fp8_e4m3"}),
    },
    "spqr": {
        "bits": ({}, 4), "beta1": ({}, 8), "beta2": ({}, 8), "shapes": ({}, {"a": 1}),
        "modules_to_not_convert": ({}, PLAIN),
    },
    "torchao": {
        "quant_type": ({}, "float8_weight_only"), "modules_to_not_convert": ({}, PLAIN),
        "include_input_output_embeddings": ({}, True), "untie_embedding_weights": ({}, True), "group_size": ({}, 32),
        "weight_dtype": ({"quant_type": "intx_weight_only"}, "int4"),
        "mapping_type": ({"quant_type": "intx_weight_only"}, "asymmetric"),
    },
    "vptq": {
        "enable_proxy_error": ({}, True), "config_for_layers": ({}, {"a": {}}), "shared_layer_config": ({}, {"a": 1}),
        "modules_to_not_convert": ({}, PLAIN),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(hidden_size=128, num_hidden_layers=1).save_pretrained(folder)
    return folder


def digest(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(as_bytes(tensor.contiguous()).numpy().tobytes()).hexdigest()}"


def outcome(plain: Path, method: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a user sees of a configuration: the tensors, the logits, warnings, or the error; and what is saved of it."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            config = getattr(unibody, QUANTIZERS[method]["config"])(**options)
            found["saved"] = json.loads(json.dumps(config.to_dict()))
            if not QUANTIZERS[method]["quantizers"]:
                return found | {"seen": found["saved"]}
            model = unibody.AutoModelForCausalLM.from_pretrained(
                plain, dtype=torch.float32, quantization_config=config
            )
            ids = inputs.token_ids(2, 8)
            layers = [layer for layer in model.modules() if hasattr(layer, "stored_tensors")]
            if method == "quanto" and config.activations:
                with import_module(type(layers[0]).__module__).calibrate(model), torch.no_grad():
                    model(ids)
            with torch.no_grad():
                logits = model(ids).logits
            tensors = {name: digest(tensor) for name, tensor in model.state_dict().items()}
            found["saved"] = json.loads(json.dumps(config.to_dict()))
            found["seen"] = tensors, logits.tolist(), sorted((type(layer).__name__, layer.kernel) for layer in layers)
        except (ImportError, OSError, TypeError, ValueError) as error:
            found["seen"] = f"{type(error).__name__}: {error}"
    found["warned"] = sorted({str(warning.message) for warning in caught})
    return found


@pytest.mark.parametrize("method", OTHERS)
def test_every_parameter(method: str, plain: Path) -> None:
    fields = {f.name for f in dataclasses.fields(getattr(unibody, QUANTIZERS[method]["config"])) if f.name != "kernel"}
    assert OTHERS[method].keys() == fields
    outcomes: dict[str, Any] = {}
    for name, (more, value) in OTHERS[method].items():
        base = {**BASE.get(method, {}), **more}
        key = json.dumps(base, sort_keys=True)
        if key not in outcomes:
            outcomes[key] = outcome(plain, method, base)
        usual, found = outcomes[key], outcome(plain, method, {**base, name: value})
        if (method, name) in TOLD:
            assert found["saved"] != usual["saved"], name
            continue
        assert found["seen"] != usual["seen"] or set(found["warned"]) - set(usual["warned"]), f"{name} changes nothing"


def test_every_method_is_here() -> None:
    assert OTHERS.keys() | ELSEWHERE == QUANTIZERS.keys()
