"""`fsdp` and `fsdp_config`: what they mean, and what of them is refused; and what other code asks about FSDP."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from transformers.integrations import fsdp as theirs

import unibody
from unibody import deferral
from unibody.integrations import fsdp, is_fsdp_enabled, is_fsdp_managed_module
from unibody.training import fsdp_config


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings speak to the environment: afterwards it is as before."""
    for name in (fsdp.IN_USE, fsdp.EFFICIENT_LOADING):
        monkeypatch.setenv(name, "false")
    yield
    deferral.expect(False)


@pytest.fixture
def alone() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def read(option: Any, **config: Any) -> Any:
    return unibody.TrainingArguments("out", fsdp=option, fsdp_config=config or None).sharding


def test_meaning(tmp_path: Path) -> None:
    for nothing in (None, False, "", []):
        assert read(nothing) is None
    assert read(True) == read("full_shard") == read(["full_shard", "auto_wrap"]) == read("auto_wrap")
    assert read(True).reshard_after_forward is True and read("shard_grad_op").reshard_after_forward is False
    assert read(True, reshard_after_forward="false").reshard_after_forward is False
    assert read(True, reshard_after_forward=2).reshard_after_forward == 2
    hybrid = read("hybrid_shard_zero2", dp_shard_size=2)
    assert hybrid.hybrid and hybrid.dp_shard_size == 2 and hybrid.reshard_after_forward is False
    assert (
        read("full_shard offload").offload
        and read(True, offload_params=True).offload
        and read(True, cpu_offload=True).offload
    )
    assert (
        read(True, transformer_layer_cls_to_wrap="A,B").layers
        == read(True, transformer_layer_cls_to_wrap=["A", "B"]).layers
    )
    assert read(True, min_num_params=7).auto_wrap_policy == "SIZE_BASED_WRAP"
    assert read(True, state_dict_type="SHARDED_STATE_DICT").sharded_checkpoints
    half = (("param_dtype", torch.bfloat16), ("reduce_dtype", torch.bfloat16))
    assert read(True, mixed_precision_policy="bf16").precision == half
    file = tmp_path / "fsdp.json"
    file.write_text(json.dumps({"fsdp_min_num_params": 7, "fsdp_version": 2}), encoding="utf-8")
    args = unibody.TrainingArguments("out", fsdp=True, fsdp_config=str(file))
    assert args.sharding == read(True, min_num_params=7)
    (tmp_path / "args.json").write_text(args.to_json_string(), encoding="utf-8")
    assert unibody.TrainingArguments.from_json_file(tmp_path / "args.json").sharding == args.sharding


@pytest.mark.parametrize(
    ("option", "config", "message"),
    [
        ("full_shards", {}, "fsdp has 'full_shards': write True, or some of full_shard, shard_grad_op, hybrid_shard"),
        ("full_shard shard_grad_op", {}, "fsdp has full_shard and shard_grad_op: choose one"),
        ("no_shard", {}, "fsdp='no_shard' is a whole model on each process: leave fsdp out"),
        (True, {"transformer_layer_class_to_wrap": "A"}, "no setting: do you mean transformer_layer_cls_to_wrap?"),
        (True, {"zzz": 1}, "fsdp_config has 'zzz', which is no setting: it may have version, "),
        (True, {"xla": True}, "fsdp_config has xla: it is for TPUs"),
        (True, {"version": 1}, "version 1 is torch's former FSDP"),
        (True, {"sharding_strategy": "FULL_SHARD"}, "fsdp_config has sharding_strategy: write fsdp='full_shard'"),
        (True, {"state_dict_type": "LOCAL_STATE_DICT"}, "no StateDictType: choose one of FULL_STATE_DICT, SHARDED_STATE_DICT"),
        (True, {"auto_wrap_policy": "LAYERS"}, "choose one of TRANSFORMER_BASED_WRAP, SIZE_BASED_WRAP, NO_WRAP"),
        (True, {"auto_wrap_policy": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP needs min_num_params"),
        (True, {"min_num_params": 5, "transformer_layer_cls_to_wrap": "A"}, "two ways to cut a model: choose one"),
        (True, {"dp_shard_size": 2}, "are for shards that are replicated: set fsdp='hybrid_shard'"),
        (True, {"cpu_ram_efficient_loading": "perhaps"}, "cpu_ram_efficient_loading is 'perhaps': write true or false"),
        (True, {"mixed_precision_policy": {"param_dtype": "bfloat"}}, "param_dtype 'bfloat' is no type of torch"),
        (True, {"mixed_precision_policy": {"dtype": "bf16"}}, "mixed_precision_policy has 'dtype': it may have param_dtype, "),
    ],
)  # fmt: skip
def test_refused(option: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(option, **config)
    assert message in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fsdp_config names .*/nowhere\.json, which cannot be read \(No such file"):
        unibody.TrainingArguments("out", fsdp=True, fsdp_config=str(tmp_path / "nowhere.json"))
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"fsdp_config names .*/broken\.json, which is not JSON: "):
        unibody.TrainingArguments("out", fsdp=True, fsdp_config=str(tmp_path / "broken.json"))
    with pytest.raises(ValueError, match="fsdp_config is list: write a dict, or the path of a JSON file"):
        unibody.TrainingArguments("out", fsdp=True, fsdp_config=[1])  # type: ignore[arg-type]


def test_without_effect() -> None:
    """Settings of the first FSDP: silent where they say what the second does, as configurations of the ecosystem have them."""
    read(
        True,
        use_orig_params=True,
        sync_module_states="true",
        forward_prefetch=False,
        xla=False,
        xla_fsdp_grad_ckpt=False,
    )
    with pytest.warns(
        UserWarning, match="fsdp_config: forward_prefetch=True has no effect, FSDP2 always works as if it were False"
    ):
        read(True, forward_prefetch=True)
    with pytest.warns(UserWarning, match="fsdp_config has no effect without fsdp: set fsdp=True"):
        read(None, min_num_params=5)


def test_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --use_fsdp` says, where the settings say nothing."""
    told = {
        "VERSION": "2", "MIN_NUM_PARAMS": "100000000", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "RESHARD_AFTER_FORWARD": "false",
        "TRANSFORMER_CLS_TO_WRAP": "LlamaMLP", "STATE_DICT_TYPE": "SHARDED_STATE_DICT", "OFFLOAD_PARAMS": "false",
    }  # fmt: skip
    monkeypatch.setattr(fsdp_config, "LAUNCHED", True)
    for name, value in told.items():
        monkeypatch.setenv(f"FSDP_{name}", value)
    found = unibody.TrainingArguments("out").sharding
    assert found == read(
        "shard_grad_op", transformer_layer_cls_to_wrap="LlamaMLP", state_dict_type="SHARDED_STATE_DICT"
    )
    assert unibody.TrainingArguments("out", fsdp=False).sharding is None
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match="accelerate launch asks for torch's former FSDP: pass --fsdp_version 2"):
        unibody.TrainingArguments("out")


def test_enabled(monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    """The oracle's answer, for every way to say yes and no."""
    words = (None, "true", "1", "yes", "on", "false", "0")
    answers = set()
    for in_use, efficient in itertools.product(words, repeat=2):
        for name, value in ((fsdp.IN_USE, in_use), (fsdp.EFFICIENT_LOADING, efficient)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        assert is_fsdp_enabled() == theirs.is_fsdp_enabled(), (in_use, efficient)
        answers.add(is_fsdp_enabled())
    assert answers == {True, False}
    read(True, cpu_ram_efficient_loading=True)
    assert is_fsdp_enabled() and theirs.is_fsdp_enabled()
    read(True)
    assert not is_fsdp_enabled() and not theirs.is_fsdp_enabled()


def test_not_enabled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (fsdp.IN_USE, fsdp.EFFICIENT_LOADING):
        monkeypatch.setenv(name, "true")
    assert not is_fsdp_enabled() and not theirs.is_fsdp_enabled()


def test_managed(alone: None) -> None:
    """The oracle's answer, for modules of both versions of FSDP, what is in them and what is around them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def layers() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    mesh, second, part = init_device_mesh("cpu", (1,)), layers(), layers()
    fully_shard(second, mesh=mesh)
    fully_shard(part[0], mesh=mesh)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one process has nothing to shard, and that there is a second version
        first = FullyShardedDataParallel(layers(), device_id=torch.device("cpu"))
    found = [
        (is_fsdp_managed_module(module), theirs.is_fsdp_managed_module(module))
        for module in (layers(), second, second[0], part, part[0], part[1], first, first.module, nn.Sequential(first))
    ]
    assert all(mine == other for mine, other in found)
    assert [mine for mine, _ in found] == [False, True, True, False, True, False, True, True, False]


def test_a_sharded_model_does_not_save_itself(alone: None, tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    config = unibody.LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    model = unibody.LlamaForCausalLM(config)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"only shards of FSDPLlamaForCausalLM: save it with trainer\.save_model"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_stay_in_their_files(tmp_path: Path) -> None:
    """Loading for FSDP: no memory, what is not stored is made, ties are ties; later models are loaded as ever."""
    config = unibody.LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True
    )  # fmt: skip
    stored = unibody.LlamaForCausalLM(config)
    stored.save_pretrained(tmp_path)
    read(True, cpu_ram_efficient_loading=True)
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="bfloat16")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    state = stored.state_dict()
    assert all(torch.equal(parameter.in_file, state[name]) for name, parameter in model.named_parameters())
    with pytest.warns(UserWarning, match=r"lacks weights, which are random now: score\.weight"):
        labels = unibody.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert [name for name, p in labels.named_parameters() if p.device.type == "cpu"] == ["score.weight"]
    read(None)
    assert unibody.AutoModelForCausalLM.from_pretrained(tmp_path).device.type == "cpu"
