"""torchao's types as configurations: JSON and layers beside transformers', names of old, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchao.prototype.mx_formats.inference_workflow as mx
import torchao.quantization as ao
import transformers
from oracle.quantization import inputs
from quantizers.files import generated
from quantizers.torchao_cases import CONFIGS
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.prototype.quantization.quant_api import Float8StaticActivationFloat8WeightConfig

import unibody

torchao = generated("torchao")
Int8, Intx = ao.Int8WeightOnlyConfig, ao.IntxWeightOnlyConfig
Float8, Float8Dynamic = ao.Float8WeightOnlyConfig, ao.Float8DynamicActivationFloat8WeightConfig
STATIC = ao.Int8StaticActivationInt8WeightConfig(act_quant_scale=torch.tensor(0.1))


@pytest.mark.parametrize("kind", CONFIGS)
def test_configuration(kind: str) -> None:
    """An object's JSON is transformers', both ways, and torchao makes the same object of it."""
    ours, theirs = torchao.TorchAoConfig(CONFIGS[kind]), transformers.TorchAoConfig(CONFIGS[kind])
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours
    assert ours.get_apply_tensor_subclass() == theirs.get_apply_tensor_subclass()
    placed = (CONFIGS[kind], ["a"], True, True)
    assert torchao.TorchAoConfig(*placed).to_dict() == transformers.TorchAoConfig(*placed).to_dict()


NAMED: list[tuple[str, dict[str, Any], Any]] = [
    ("int8_weight_only", {}, CONFIGS["int8"]),
    ("int8_weight_only", {"group_size": 32}, CONFIGS["int8_groups"]),
    ("int8_dynamic_activation_int8_weight", {}, CONFIGS["int8_dynamic"]),
    ("int8_dynamic_activation_int4_weight", {"group_size": 32}, CONFIGS["8da4w"]),
    ("intx_weight_only", {"weight_dtype": "int4", "group_size": 32}, CONFIGS["int4_groups"]),
    (
        "int8_dynamic_activation_intx_weight",
        {"weight_dtype": torch.int3, "group_size": 32, "mapping_type": "asymmetric"},
        CONFIGS["8da3w"],
    ),
    ("int4_weight_only", {"group_size": 64}, ao.Int4WeightOnlyConfig(group_size=64)),
    ("float8_weight_only", {}, CONFIGS["float8"]),
    ("float8_dynamic_activation_float8_weight", {}, CONFIGS["float8_inputs"]),
]


@pytest.mark.parametrize(("name", "options", "given"), NAMED)
def test_names(name: str, options: dict[str, Any], given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with options has the JSON of the object, without the package; also where the options are a dictionary."""
    expected = json.loads(json.dumps(transformers.TorchAoConfig(given).to_dict()))
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert torchao.TorchAoConfig(name, **options).to_dict() == expected
    apart = {"quant_method": "torchao", "quant_type": name, "quant_type_kwargs": options or None}
    assert torchao.TorchAoConfig.from_dict(apart).to_dict() == expected
    assert torchao.TorchAoConfig.from_dict(expected).to_dict() == expected


def test_every_class() -> None:
    """Of the classes that torchao has, one has a layer here, or is refused by its name."""
    classes = {c for c in vars(ao).values() if isinstance(c, type) and issubclass(c, AOBaseConfig)}
    classes |= {
        mx.MXDynamicActivationMXWeightConfig,
        mx.NVFP4WeightOnlyConfig,
        Float8StaticActivationFloat8WeightConfig,
    }
    known = {c for c in classes if c.__name__ in torchao.TYPES}
    assert len(known) == len(torchao.TYPES)
    for config_class in known:
        torchao.TorchAoConfig(config_class())
    refused = classes - known - {ao.FqnToConfig}
    assert len(refused) >= 6
    for config_class in refused:
        entry = {"_type": config_class.__name__, "_data": {}}
        with pytest.raises(
            ValueError, match=f"quant_type '{config_class.__name__}' has no layer here.*: there are Int8"
        ):
            torchao.TorchAoConfig(entry)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "quant_type 'int' has no layer here"),
        (None, "quant_type 'NoneType' has no layer here"),
        ({"default": {}, "other": {}}, r"quant_type {'default': {}, 'other': {}} has no layer here"),
        ("int9_weight_only", "quant_type 'int9_weight_only' is not known: there are int8_weight_only, "),
        (STATIC, "'Int8StaticActivationInt8WeightConfig' has no layer here; its scales are tensors, .*: round inputs dyn"),
        (ao.FqnToConfig({"a": None, "b": STATIC}), "'Int8StaticActivationInt8WeightConfig' has no layer here; its scales"),
        (ao.Float8DynamicActivationInt4WeightConfig(), "'Float8DynamicActivationInt4WeightConfig' has no layer here"),
        ({"_type": "FqnToConfig", "_data": {"fqn_to_config": {"a": {"_type": "X"}}}}, "quant_type 'X' has no layer here"),
        ({"_type": "Int8WeightOnlyConfig", "_version": 1, "_data": {}}, "_version of Int8WeightOnlyConfig is 1, expected 2"),
        ({"_type": "Int8WeightOnlyConfig", "_data": {"bits": 4}}, "Int8WeightOnlyConfig has no bits: there are group_size"),
        ({"_type": "Int8WeightOnlyConfig", "_data": {"group_size": 32}}, "is 32, expected None: granularity PerGroup"),
        (Int8(granularity=ao.PerRow(0)), r"granularity of Int8WeightOnlyConfig is PerRow\(dim=0\), expected PerRow\(dim=-1\)"),
        (Int8(granularity=ao.PerGroup(0)), r"is PerGroup\(group_size=0\), expected PerRow.* or PerGroup"),
        (Float8(granularity=ao.PerGroup(-1)), r"granularity of Float8WeightOnlyConfig is PerGroup\(group_size=-1\)"),
        (Float8(weight_dtype=torch.float8_e4m3fnuz), "weight_dtype .* is float8_e4m3fnuz, expected float8_e4m3fn or float8_e5m2"),
        (Intx(weight_dtype=torch.int1), "weight_dtype of IntxWeightOnlyConfig is int1, expected int2 or int3"),
        (Intx(scale_dtype=torch.int8), "scale_dtype of IntxWeightOnlyConfig is int8, expected None or float32"),
        (Intx(intx_packing_format="opaque_aten_kleidiai"), "intx_packing_format .* opaque_aten_kleidiai, expected UNPACKED"),
        (
            ao.Int8DynamicActivationIntxWeightConfig(act_mapping_type=ao.MappingType.SYMMETRIC),
            "act_mapping_type of Int8DynamicActivationIntxWeightConfig is SYMMETRIC, expected ASYMMETRIC",
        ),
        (
            {"_type": "Float8DynamicActivationFloat8WeightConfig", "_data": {"granularity": [{"_type": "PerBlock"}]}},
            r"is PerBlock\(\), expected PerRow\(dim=-1\) or PerTensor\(\)",
        ),
        (
            {
                "_type": "Float8DynamicActivationFloat8WeightConfig",
                "_data": {"granularity": [torchao.ROW, torchao.TENSOR]},
            },
            r"is PerRow\(dim=-1\) and PerTensor\(\), expected",
        ),
        (Float8Dynamic(activation_value_ub="9"), "activation_value_ub of Float8Dynamic.* is 9, expected a number or None"),
        (Float8Dynamic(packing_format="sparse_1d_data_1d_metadata"), "is sparse_1d_data_1d_metadata, expected PLAIN"),
        ({"_type": "Int8WeightOnlyConfig", "_data": 5}, "_data of Int8WeightOnlyConfig is 5, expected a dictionary"),
        (
            {"_type": "FqnToConfig", "_data": {"fqn_to_config": {"a": {"_type": "FqnToConfig", "_data": {}}}}},
            r"a of FqnToConfig is FqnToConfig\(\), expected a type, not a map",
        ),
        ({"_type": "Int4WeightOnlyConfig", "_data": {"group_size": "64"}}, "is 64, expected a positive number"),
        (ao.Int4WeightOnlyConfig(group_size=0), "group_size of Int4WeightOnlyConfig is 0, expected a positive number"),
    ],
)  # fmt: skip
def test_refusals(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"TorchAoConfig: .*{message}"):
        torchao.TorchAoConfig(given)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            "float8_weight_only",
            {"weight_dtype": "x"},
            "weight_dtype of Float8WeightOnlyConfig is x, expected float8_e4m3fn",
        ),
        ("float8_weight_only", {"mapping_type": "y"}, "float8_weight_only takes no mapping_type"),
        ("int8_dynamic_activation_int8_weight", {"group_size": 32}, r"granularity of .* is PerGroup\(group_size=32\)"),
        (CONFIGS["int8"], {"group_size": 32}, "group_size go with a name for quant_type"),
    ],
)
def test_refused_options(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torchao.TorchAoConfig(given, **options)


def test_untying_alone_changes_nothing() -> None:
    with pytest.warns(UserWarning, match="changes nothing without include_input_output_embeddings"):
        torchao.TorchAoConfig("int8_weight_only", untie_embedding_weights=True)


Q, EMBEDDING = "model.layers.0.self_attn.q_proj", "model.embed_tokens"
INT8, INT4 = Int8(), Intx(weight_dtype=torch.int4)
SOME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # types by name, and options
    "weight": ({f"{Q}.weight": INT8, Q: INT4}, {}),
    "exact": ({"re:.*q_proj": INT4, Q: INT8}, {}),
    "order": ({r"re:.*proj\.weight": INT8, "re:.*mlp.*": INT4}, {}),
    "whole names": ({"re:model.layers.0": INT4, "re:.*mlp": INT4, "mlp": INT4, Q: INT8}, {}),
    "none": ({f"{Q}.weight": None, "_default": INT8, "re:.*mlp.*": None}, {}),
    "head": ({"lm_head": INT4, "_default": INT8}, {"modules_to_not_convert": []}),
    "skipped": ({"lm_head": INT4, Q: INT4, "_default": INT8}, {"modules_to_not_convert": ["lm_head", Q]}),
    "embedding": ({EMBEDDING: INT8, Q: INT4}, {}),
    "only embedding": ({"re:.*embed_tokens": INT8}, {}),
    "included": ({EMBEDDING: INT8, "_default": INT4}, {"include_input_output_embeddings": True}),
    "not included": ({EMBEDDING: None, "_default": INT4}, {"include_input_output_embeddings": True}),
    "tensors": ({Q: Int8(granularity=ao.PerTensor()), "re:.*mlp.*": Float8(granularity=ao.PerTensor())}, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama().save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:Config Deprecation. _default is deprecated")
@pytest.mark.parametrize("case", SOME)
def test_types_by_name(case: str, plain: Path, tmp_path: Path) -> None:
    """Layers of one model may differ, or stay plain: the same as transformers', which reads what we save, and we it."""
    types, options = SOME[case]
    given = ao.FqnToConfig(types)
    config = unibody.TorchAoConfig(given, **options, kernel="torch")
    model = unibody.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, quantization_config=transformers.TorchAoConfig(given, **options)
    )
    ids, kinds = inputs.token_ids(2, 9), (nn.Linear, nn.Embedding)
    expected = {
        name: str(getattr(module.weight, "target_dtype", torch.int8))
        for name, module in theirs.named_modules()
        if isinstance(module, kinds) and type(module.weight) is not nn.Parameter
    }
    found = {
        name: f"torch.int{layer.bits}" for name, layer in model.named_modules() if hasattr(layer, "stored_tensors")
    }
    assert found == expected
    model.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        logits = theirs(ids).logits
        torch.testing.assert_close(model(ids).logits, logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(back(ids).logits, logits)
        torch.testing.assert_close(again(ids).logits, logits, rtol=1e-4, atol=1e-4)


def test_tied_embeddings_stay_plain_unless_included(tmp_path: Path) -> None:
    """As in torchao, where a map names them."""
    inputs.llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    config = unibody.TorchAoConfig(ao.FqnToConfig({EMBEDDING: INT8, Q: INT4}))
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    assert {name for name, layer in model.named_modules() if hasattr(layer, "stored_tensors")} == {Q}


@pytest.mark.parametrize(
    ("name", "group_size", "message"),
    [
        ("int4_weight_only", 32, r"model.embed_tokens \(Embedding, Int4WeightOnlyConfig\) has no codes"),
        ("int8_weight_only", 48, "embed_tokens has 64 columns, not a multiple of Int8WeightOnlyConfig's groups of 48"),
    ],
)
def test_refused_embeddings(name: str, group_size: int, message: str, plain: Path) -> None:
    config = unibody.TorchAoConfig(name, group_size=group_size, include_input_output_embeddings=True)
    with pytest.raises(ValueError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16, quantization_config=config)
