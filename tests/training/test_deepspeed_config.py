"""DeepSpeed's configuration, filled in from the arguments as transformers fills it in; what contradicts them, all at once."""

from __future__ import annotations

import base64
import copy
import gc
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers.integrations import deepspeed as oracle

import unibody
from unibody import integrations
from unibody.integrations.deepspeed.arguments import HfTrainerDeepSpeedConfig

A = "auto"
BATCH = {
    "train_batch_size": A,
    "train_micro_batch_size_per_gpu": A,
    "gradient_accumulation_steps": A,
    "gradient_clipping": A,
}
OPTIMIZER = {"type": "AdamW", "params": {"lr": A, "betas": A, "eps": A, "weight_decay": A}}
SCHEDULER = {
    "type": "WarmupDecayLR",
    "params": {"warmup_min_lr": A, "warmup_max_lr": A, "warmup_num_steps": A, "total_num_steps": A},
}
ZERO3 = {
    "stage": 3,
    "reduce_bucket_size": A,
    "stage3_prefetch_bucket_size": A,
    "stage3_param_persistence_threshold": A,
}
FULL = {
    **BATCH,
    "optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "bf16": {"enabled": A},
    "fp16": {"enabled": A},
    "zero_optimization": ZERO3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "full": FULL,
    "batch": {**BATCH, "zero_optimization": {"stage": 2, "reduce_bucket_size": A}},
    "optimizer": {"optimizer": OPTIMIZER, "zero_optimization": {"stage": 1}},
    "partly": {
        "gradient_clipping": 1.0,
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": A}},
        "zero_optimization": {**ZERO3, "reduce_bucket_size": 7},
    },
    "bare": {"zero_optimization": {"stage": 0}},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "changed": {
        "learning_rate": 1e-3, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "weight_decay": 0.1, "warmup_steps": 10,
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": 5,
    },
    "share": {"warmup_steps": 0.07, "max_grad_norm": 1.0, "per_device_train_batch_size": 1},
    "none": {"warmup_steps": 0, "weight_decay": 0.0},
}  # fmt: skip
MODELS = {
    "one": {"hidden_size": 64},
    "several": {"hidden_sizes": [16, 96, 32]},
    "text": {"text_config": SimpleNamespace(hidden_size=48)},
    "odd": {"hidden_size": 37},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No configuration holds after a test, and the environment is as before."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    yield
    integrations.unset_hf_deepspeed_config()
    oracle.unset_hf_deepspeed_config()


def filled(library: Any, made: Any, model: dict[str, Any], **settings: Any) -> Any:
    args = library.TrainingArguments(output_dir="unused", use_cpu=True, **settings)
    made.trainer_config_process(args)
    made.trainer_config_finalize(args, SimpleNamespace(config=SimpleNamespace(**model)), 150)
    return made


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("settings", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_filled_in(config: dict[str, Any], settings: dict[str, Any], model: dict[str, Any]) -> None:
    before = copy.deepcopy(config)
    ours = filled(unibody, HfTrainerDeepSpeedConfig(config), model, **settings)
    theirs = filled(transformers, oracle.HfTrainerDeepSpeedConfig(config), model, **settings)
    assert ours.config == theirs.config
    assert config == before
    assert ours.dtype() == theirs.dtype() == torch.float32
    for name in ("is_zero2", "is_zero3", "is_offload"):
        assert getattr(ours, name)() == getattr(theirs, name)()


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_half_precision(kind: str) -> None:
    ours = filled(unibody, HfTrainerDeepSpeedConfig(FULL), {"hidden_size": 8}, **{kind: True})
    theirs = filled(transformers, oracle.HfTrainerDeepSpeedConfig(FULL), {"hidden_size": 8}, **{kind: True})
    assert ours.config == theirs.config and ours.dtype() == theirs.dtype()
    bare = filled(unibody, HfTrainerDeepSpeedConfig({}), {}, **{kind: True})
    assert bare.config == {kind: {"enabled": True}} and bare.dtype() == theirs.dtype()


def test_every_mismatch_is_listed() -> None:
    """All in one error, which says both values; the same keys as the oracle's."""
    config = {
        "train_batch_size": 7, "train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 5, "gradient_clipping": 2.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1, "betas": [0.1, 0.2], "eps": 1, "weight_decay": 3}},
        "scheduler": {
            "type": "WarmupLR",
            "params": {"warmup_min_lr": 1, "warmup_max_lr": 2, "warmup_num_steps": 4, "total_num_steps": 3},
        },
        "bf16": {"enabled": True}, "fp16": {"enabled": False},
    }  # fmt: skip
    found = []
    for library, made in (
        (unibody, HfTrainerDeepSpeedConfig(config)),
        (transformers, oracle.HfTrainerDeepSpeedConfig(config)),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  its text is what is looked at
            filled(library, made, {"hidden_size": 8})
        found.append(str(caught.value))
    keys = [set(re.findall(r"^- (?:ds )?([\w.]+)", text, re.MULTILINE)) for text in found]
    assert keys[0] == keys[1] and len(keys[0]) == 12
    assert "\n- gradient_clipping is 2.0, and max_grad_norm is 1.0\n" in found[0]
    assert "\n- optimizer.params.betas is [0.1, 0.2], and [adam_beta1, adam_beta2] is [0.9, 0.999]\n" in found[0]
    assert found[0].endswith('make them equal, or write "auto" in the configuration')


def test_rounding_is_no_mismatch() -> None:
    config = {"gradient_clipping": 1, "optimizer": {"type": "Adam", "params": {"lr": 0.1 + 0.2}}}
    assert filled(unibody, HfTrainerDeepSpeedConfig(config), {}, learning_rate=0.3).mismatches == []


def test_filled_in_again() -> None:
    """A second run of other length, or of other arguments, finds what was "auto" open."""
    made = filled(unibody, HfTrainerDeepSpeedConfig(FULL), {"hidden_size": 8}, learning_rate=1e-3)
    filled(unibody, made, {"hidden_size": 8}, learning_rate=1e-4)
    assert made.get_value("optimizer.params.lr") == 1e-4


def test_nobody_knows() -> None:
    made = HfTrainerDeepSpeedConfig({"zero_optimization": ZERO3, "activation_checkpointing": {"number": A}})
    message = r"leaves zero_optimization\.reduce_bucket_size, .*, activation_checkpointing\.number to nobody who knows: write a value"
    with pytest.raises(ValueError, match=message):
        filled(unibody, made, {"size": 3})


def test_sources(tmp_path: Path) -> None:
    """A file, base64 of its text, or a dictionary, which is copied."""
    text = json.dumps(FULL)
    file = tmp_path / "zero3.json"
    file.write_text(text, encoding="utf-8")
    for source in (str(file), file, base64.urlsafe_b64encode(text.encode()).decode(), FULL):
        assert integrations.HfDeepSpeedConfig(source).config == FULL
    bad = {
        "nowhere.json": "nowhere.json is no file: name that of a DeepSpeed configuration, or give a dictionary",
        str(tmp_path): "is no file",
        3: "a path or a dictionary, not int",
    }
    for source, message in bad.items():
        with pytest.raises(ValueError, match=message):
            integrations.HfDeepSpeedConfig(source)  # type: ignore[arg-type]
    for text, message in (("{oops", r"zero3\.json is not JSON \(.*\): correct it"), ("[]", "holds a list, expected")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            integrations.HfDeepSpeedConfig(file)


def test_a_tree_of_keys() -> None:
    """As transformers' answers, for keys that are there and keys that are not."""
    tree = {
        "zero_optimization": {"stage": 3},
        "a": {"b": {"one": 1, "true": True, "false": False, "zero": 0, "none": None}},
        "x": A,
    }
    ours, theirs = integrations.HfDeepSpeedConfig(tree), oracle.HfDeepSpeedConfig(tree)
    for key in ("a.b.one", "a.b", "a.q", "q", "q.r", "a.b.true", "a.b.false", "a.b.zero", "a.b.none", "x"):
        for method in ("get_value", "is_true", "is_false", "find_config_node"):
            assert getattr(ours, method)(key) == getattr(theirs, method)(key), (method, key)
        assert ours.get_value(key, 5) == theirs.get_value(key, 5)
    assert ours.get_value("a.b.one.more", 5) == 5
    for key in ("a.b.one", "a.b.one", "q.r", "a"):
        ours.del_config_sub_tree(key)
        theirs.del_config_sub_tree(key)
        assert ours.config == theirs.config
    with pytest.raises(ValueError, match=r"has no a\.b: it has zero_optimization, x"):
        ours.del_config_sub_tree("a.b", must_exist=True)


@pytest.mark.parametrize("stage", [0, 1, 2, 3, A, None])
@pytest.mark.parametrize("part", ["offload_optimizer", "offload_param"])
@pytest.mark.parametrize("device", ["cpu", "nvme", "none"])
def test_stage_and_offload(stage: Any, part: str, device: str) -> None:
    tree = {"zero_optimization": {"stage": stage, part: {"device": device}}}
    ours, theirs = integrations.HfDeepSpeedConfig(tree), oracle.HfDeepSpeedConfig(tree)
    for name in ("is_zero2", "is_zero3", "is_offload"):
        assert getattr(ours, name)() == getattr(theirs, name)()


def test_it_holds_while_it_lives() -> None:
    assert integrations.deepspeed_config() is None and not integrations.is_deepspeed_zero3_enabled()
    made = integrations.HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert integrations.deepspeed_config() is made.config and integrations.is_deepspeed_zero3_enabled()
    integrations.unset_hf_deepspeed_config()
    assert not integrations.is_deepspeed_zero3_enabled()
    integrations.set_hf_deepspeed_config(made)
    assert integrations.is_deepspeed_zero3_enabled()
    del made
    gc.collect()
    assert integrations.deepspeed_config() is None and not integrations.is_deepspeed_zero3_enabled()
    args = unibody.TrainingArguments("unused", use_cpu=True, deepspeed={"zero_optimization": {"stage": 3}})
    assert integrations.is_deepspeed_zero3_enabled()  # before there is a model
    assert args.hf_deepspeed_config.dtype() == torch.float32
    assert "hf_deepspeed_config" not in args.to_dict()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibody.integrations.availability.found_version", lambda name: None)
    message = r"needs deepspeed >= [\d.]+, which is not installed: pip install 'unibody\[deepspeed\]'"
    with pytest.raises(integrations.MissingPackageError, match=message):
        unibody.TrainingArguments("unused", deepspeed={})
