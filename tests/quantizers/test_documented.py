"""The documented configurations: names, order and defaults of their parameters, the choices, and what they exclude."""

from __future__ import annotations

import enum
import inspect
from typing import Any

import pytest
import torch
import transformers
from quantizers.files import generated, make_layer

import unibody

DOCUMENTED: dict[str, dict[str, Any]] = {
    "BitsAndBytesConfig": {
        "load_in_8bit": False, "load_in_4bit": False, "llm_int8_threshold": 6.0, "llm_int8_skip_modules": None,
        "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False, "bnb_4bit_compute_dtype": None,
        "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False, "bnb_4bit_quant_storage": None,
    },
    "GPTQConfig": {
        "bits": inspect.Parameter.empty, "tokenizer": None, "dataset": None, "group_size": 128, "damp_percent": 0.1,
        "desc_act": False, "sym": True, "true_sequential": True, "checkpoint_format": "gptq", "meta": None,
        "backend": None, "use_cuda_fp16": False, "model_seqlen": None, "block_name_to_quantize": None,
        "module_name_preceding_first_block": None, "batch_size": 1, "pad_token_id": None, "use_exllama": None,
        "max_input_length": None, "exllama_config": None, "cache_block_outputs": True,
        "modules_in_block_to_quantize": None,
    },
    "AwqConfig": {
        "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm", "backend": "autoawq", "do_fuse": None,
        "fuse_max_seq_len": None, "modules_to_fuse": None, "modules_to_not_convert": None, "exllama_config": None,
    },
    "HqqConfig": {
        "nbits": 4, "group_size": 64, "view_as_float": False, "axis": None, "dynamic_config": None,
        "skip_modules": ["lm_head"],
    },
    "QuantoConfig": {"weights": "int8", "activations": None, "modules_to_not_convert": None},
    "AutoRoundConfig": {"bits": 4, "group_size": 128, "sym": True, "backend": "auto"},
    "EetqConfig": {"weights": "int8", "modules_to_not_convert": None},
    "FbgemmFp8Config": {"activation_scale_ub": 1200.0, "modules_to_not_convert": None},
    "FineGrainedFP8Config": {
        "activation_scheme": "dynamic", "weight_block_size": (128, 128), "modules_to_not_convert": None,
    },
    "CompressedTensorsConfig": {
        "config_groups": None, "format": "dense", "quantization_status": "initialized", "kv_cache_scheme": None,
        "global_compression_ratio": None, "ignore": None, "sparsity_config": None, "quant_method": "compressed-tensors",
        "run_compressed": True,
    },
    "TorchAoConfig": {
        "quant_type": inspect.Parameter.empty, "modules_to_not_convert": None, "include_input_output_embeddings": False,
        "untie_embedding_weights": False,
    },
    "BitNetQuantConfig": {
        "modules_to_not_convert": None, "linear_class": "bitlinear", "quantization_mode": "offline", "use_rms_norm": False,
        "rms_norm_eps": 1e-6,
    },
    "AqlmConfig": {
        "in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 16,
        "linear_weights_not_to_quantize": [],
    },
    "VptqConfig": {
        "enable_proxy_error": False, "config_for_layers": {}, "shared_layer_config": {}, "modules_to_not_convert": None,
    },
    "HiggsConfig": {
        "bits": 4, "p": 2, "modules_to_not_convert": None, "hadamard_size": 512, "group_size": 256, "tune_metadata": {},
    },
    "SpQRConfig": {"bits": 3, "beta1": 16, "beta2": 16, "shapes": {}, "modules_to_not_convert": None},
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signature(name: str) -> None:
    """What is documented can be passed by position; what transformers has had since is named."""
    config_class = getattr(unibody, name)
    parameters = inspect.signature(config_class).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == [*DOCUMENTED[name]]
    config = config_class(*{"GPTQConfig": [4], "TorchAoConfig": ["int8_weight_only"]}.get(name, []))
    for parameter in positional:
        value = DOCUMENTED[name][parameter.name]
        assert (getattr(config, parameter.name) if isinstance(value, (list, dict)) else parameter.default) == value
    newer = inspect.signature(getattr(transformers, name)).parameters.keys() - {"kwargs"}
    assert newer <= parameters.keys()


def test_enumerations() -> None:
    """Texts that are members, transformers' own members too; each value that transformers has."""
    assert isinstance(unibody.AWQLinearVersion.GEMM, str)
    assert unibody.AwqConfig(version=unibody.AWQLinearVersion.GEMV).version == "gemv"
    assert unibody.AwqConfig(backend=unibody.AwqBackendPackingMethod.LLMAWQ).version == "llm-awq"
    theirs = transformers.utils.quantization_config
    for member in theirs.AwqFormat:
        assert unibody.AwqConfig(version=member).version == unibody.AWQLinearVersion(member.value)
    assert {member.value for member in unibody.QuantizationMethod} <= {m.value for m in theirs.QuantizationMethod}

    class Kind(str, enum.Enum):
        NF4 = "nf4"

    assert unibody.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=Kind.NF4).to_dict()[
        "bnb_4bit_quant_type"
    ] == ("nf4")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("GPTQConfig", {"bits": 4, "dataset": "mine"}, "GPTQConfig: dataset is 'mine', expected one of wikitext2, c4"),
        ("AwqConfig", {"dataset": "mine"}, "AwqConfig: dataset is 'mine', expected one of wikitext2, c4, c4-new, or"),
        ("AutoRoundConfig", {"dataset": "mine"}, "AutoRoundConfig: dataset is 'mine', expected one of wikitext2"),
        (
            "GPTQConfig",
            {"bits": 4, "format": "gptq", "checkpoint_format": "gptq_v2"},
            "format 'gptq' and checkpoint_format 'gptq_v2' con",
        ),
        ("AwqConfig", {"format": "gemv", "version": "gemv_fast"}, "format 'gemv' and version 'gemv_fast' con"),
        ("GPTQConfig", {"bits": 4, "exllama_config": {}}, "exllama_config is {}, expected a version, 1 or 2, in it"),
        (
            "AwqConfig",
            {"exllama_config": {"version": 3}},
            "exllama_config is {'version': 3}, expected a version, 1 or",
        ),
        (
            "AwqConfig",
            {"do_fuse": True, "fuse_max_seq_len": 8, "modules_to_fuse": {"attention": "q_proj"}},
            r"modules_to_fuse has attention 'q_proj', expected names such as \['q_proj', 'k_proj', 'v_proj', 'o_proj'\]",
        ),
        (
            "AwqConfig",
            {"do_fuse": True, "fuse_max_seq_len": 8, "modules_to_fuse": {"mlp": ["gate_proj"]}},
            r"modules_to_fuse has mlp \['gate_proj'\], expected names such as \['gate_proj', 'up_proj', 'down_proj'\]",
        ),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(unibody, name)(**options)


WHOLE_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("GPTQ", {"bits": 3}),
    ("GPTQ", {"bits": 4, "checkpoint_format": "gptq_v2"}),
    *(("Awq", {"version": version}) for version in ("gemm", "gemv", "exllama", "gemv_fast")),
    ("Awq", {"backend": "llm-awq"}),
    ("AutoRound", {"bits": 2}),
    ("AutoRound", {"packing_format": "auto_round:auto_awq"}),
]


@pytest.mark.parametrize(("method", "options"), WHOLE_ROWS)
def test_groups_of_whole_rows(method: str, options: dict[str, Any]) -> None:
    """A group size of -1: one scale for each output, as a group of a row's size has."""
    file = generated(method.lower())
    layer_class = getattr(file, {"Awq": "AWQLinear"}.get(method, f"{method}Linear"))
    config_class, weight = getattr(file, f"{method}Config"), torch.randn(64, 128)
    rows, groups = (make_layer(layer_class, config_class(group_size=n, **options), weight) for n in (-1, 128))
    stored = rows.stored_tensors()
    assert stored["scales"].numel() in (64, 8 * 64), "those of AWQ for few rows are padded to eight"
    assert all(torch.equal(stored[name], tensor) for name, tensor in groups.stored_tensors().items())
    assert torch.equal(rows.dequantize(), groups.dequantize())
    assert rows.fits()


@pytest.mark.parametrize("backend", ["auto_trainable", "ipex", "tritonv2"])
@pytest.mark.parametrize(("name", "needed"), [("GPTQConfig", [4]), ("AutoRoundConfig", [])])
def test_backends_of_others(name: str, needed: list[Any], backend: str) -> None:
    """Those that name a kernel here choose it; others are kept, and warned of."""
    for known in ("torch", "triton"):
        assert getattr(unibody, name)(*needed, backend=known).kernel == known
    with pytest.warns(UserWarning, match=f"{name}: backend changes nothing: `kernel` names the kernel"):
        assert getattr(unibody, name)(*needed, backend=backend).backend == backend


def test_exllamas_defaults() -> None:
    """Only where it is asked for; it chooses no kernel here, and that is said."""
    with pytest.warns(UserWarning, match="GPTQConfig: use_exllama changes nothing"):
        assert unibody.GPTQConfig(bits=4, use_exllama=True).exllama_config == {"version": 1}
    assert unibody.GPTQConfig(bits=4).exllama_config is None
    expected = {"version": 2, "max_input_len": 2048, "max_batch_size": 8}
    assert unibody.AwqConfig(version="exllama").exllama_config == expected


def test_what_a_fusing_scheme_cannot_say() -> None:
    options = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"], "layernorm": ["a"], "use_alibi": False}
    with pytest.warns(
        UserWarning, match=r"modules_to_fuse\['layernorm'\], modules_to_fuse\['use_alibi'\] changes nothing"
    ):
        unibody.AwqConfig(do_fuse=True, fuse_max_seq_len=8, modules_to_fuse=options)
