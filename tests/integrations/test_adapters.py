"""Adapters on plain models: by name, on the disk, and exchanged with peft in both directions; transformers runs the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from integrations.packed import plain_model
from oracle.inputs import padded_batch, token_ids
from oracle.reference import Checkpoint, assert_close, save
from oracle.zoo import Case, cases
from peft import LoraConfig, PeftModel, PrefixTuningConfig
from safetensors.torch import load_file

import unibody
from unibody.errors import HubError

# peft asks transformers for an attribute under a name that transformers gives up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROJECTIONS = ["q_proj", "v_proj", "down_proj"]
CAUSAL = [case for case in cases("AutoModelForCausalLM") if case.entry == case.model_type]
CLASSIFIERS = [case for case in cases("AutoModelForSequenceClassification") if case.model_type in ("bert", "qwen3")]


def lora(targets: Any = None, **options: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules=targets or PROJECTIONS, **{"init_lora_weights": False, **options})


def library_model(written: Checkpoint) -> Any:
    return getattr(unibody, written.case.class_name).from_pretrained(written.folder)


@pytest.mark.parametrize("case", CAUSAL + CLASSIFIERS, ids=str)
def test_exchange_with_peft(case: Case, tmp_path: Path) -> None:
    """What one writes the other opens on its own model, and all give the same logits."""
    written = save(case, "unit", tmp_path / "base")
    targets = ["query", "value"] if case.model_type == "bert" else PROJECTIONS
    task = "CAUSAL_LM" if case in CAUSAL else "SEQ_CLS"
    config = lora(targets, task_type=task, modules_to_save=None if case in CAUSAL else ["score", "classifier"])
    ids = padded_batch((9, 6), side="right")
    inputs = {"input_ids": ids.input_ids, "attention_mask": ids.attention_mask}

    ours = library_model(written)
    ours.add_adapter(config)
    ours.eval().save_pretrained(tmp_path / "ours")
    theirs = PeftModel.from_pretrained(written.reference(), tmp_path / "ours")
    with torch.no_grad():
        assert_close(ours(**inputs).logits, theirs(**inputs).logits, written.tolerance)
        assert (ours(**inputs).logits - library_model(written)(**inputs).logits).abs().max() > 0.1

    torch.manual_seed(5)
    theirs = peft.get_peft_model(written.reference(), lora(targets, task_type=task)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    back = library_model(written)
    assert back.load_adapter(tmp_path / "theirs") == ([], [])
    with torch.no_grad():
        assert_close(back(**inputs).logits, theirs(**inputs).logits, written.tolerance)
    back.save_pretrained(tmp_path / "again")
    files = [load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("theirs", "again")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_several() -> None:
    """The active ones take part, the others do not; disabled or deleted, the base model is itself again."""
    model, ids = plain_model(), token_ids()

    @torch.no_grad()
    def logits() -> torch.Tensor:
        return model(ids).logits

    base, layers = logits(), [name for name, _ in model.named_modules()]
    model.add_adapter(lora(), "one")
    one = logits()
    model.add_adapter(lora(["q_proj", "up_proj"]), "two")
    two = logits()
    assert model.active_adapters() == ["two"]
    assert not torch.allclose(one, base)
    assert not torch.allclose(one, two)
    model.set_adapter("one")
    assert torch.equal(logits(), one)
    model.set_adapter(["one", "two"])
    assert model.active_adapters() == ["one", "two"]
    both = logits()
    assert not torch.allclose(both, one)
    model.disable_adapters()
    assert torch.equal(logits(), base)
    model.enable_adapters()
    assert torch.equal(logits(), both)
    with pytest.raises(ValueError, match=r"^2 adapters are active \(one, two\): choose one with set_adapter$"):
        model.save_pretrained("nowhere")
    model.delete_adapter("one")
    assert model.active_adapters() == ["two"]
    assert torch.equal(logits(), two)
    assert model.get_adapter_state_dict().keys() == model.get_adapter_state_dict("two").keys()
    model.delete_adapter("two")
    assert torch.equal(logits(), base)
    assert [name for name, _ in model.named_modules()] == layers
    assert type(model.model.layers[0].self_attn.q_proj) is torch.nn.Linear


def test_merging() -> None:
    model, ids = plain_model(), token_ids()
    model.add_adapter(lora())
    with torch.no_grad():
        expected = model(ids).logits
        merged = model.merge_and_unload()
        assert_close(merged(ids).logits, expected, 1e-5)
    assert not any("lora" in name for name in merged.state_dict())


def test_what_is_trained(tmp_path: Path) -> None:
    """A new adapter is trained and nothing else; a loaded one is frozen unless it is asked for; the inactive one rests."""
    model = plain_model()
    model.add_adapter(lora())
    model.save_pretrained(tmp_path)
    names = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert names
    assert all(".default." in name for name in names)
    for is_trainable in (False, True):
        model.load_adapter(tmp_path, "loaded", is_trainable=is_trainable)
        trained = {name.split(".")[-2] for name, tensor in model.named_parameters() if tensor.requires_grad}
        assert trained == ({"loaded"} if is_trainable else set())
        model.delete_adapter("loaded")


def test_from_tensors(tmp_path: Path) -> None:
    model, other = plain_model(), plain_model()
    model.add_adapter(lora())
    for low_cpu_mem_usage in (False, True):
        other.load_adapter(
            peft_config=lora(), adapter_state_dict=model.get_adapter_state_dict(), low_cpu_mem_usage=low_cpu_mem_usage
        )
        assert torch.equal(other(token_ids()).logits, model(token_ids()).logits)
        other.delete_adapter("default")


OTHERS = {
    "LoHaConfig": {"r": 4, "init_weights": False},
    "LoKrConfig": {"r": 4, "init_weights": False},
    "OFTConfig": {"r": 4, "oft_block_size": 0},
    "IA3Config": {"feedforward_modules": []},
    "HRAConfig": {"r": 4, "init_weights": False},
    "AdaLoraConfig": {"init_r": 4, "total_step": 10},
}


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods(method: str, tmp_path: Path) -> None:
    """What peft injects into plain layers is saved and opens again, too."""
    model, ids = plain_model(), token_ids()
    model.add_adapter(getattr(peft, method)(target_modules=["q_proj", "v_proj"], **OTHERS[method]))
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(torch.randn_like(tensor) * 0.05)
    model.eval().save_pretrained(tmp_path)
    again = plain_model()
    assert again.load_adapter(tmp_path) == ([], [])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
        assert not torch.allclose(again(ids).logits, plain_model()(ids).logits)


def test_bad_input(tmp_path: Path) -> None:
    """Each says what is wrong and what to do, and leaves the model as it was."""
    model = plain_model()
    modules = [name for name, _ in model.named_modules()]

    def refused(error: type[Exception], message: str, call: Any, *arguments: Any, **options: Any) -> None:
        with pytest.raises(error, match=message):
            call(*arguments, **options)
        assert [name for name, _ in model.named_modules()] == modules

    for call in (model.active_adapters, model.enable_adapters, model.disable_adapters, model.merge_and_unload):
        refused(ValueError, "^the model has no adapter: add one with add_adapter or load_adapter$", call)
    refused(TypeError, r"^adapter_config is dict, expected a configuration of peft", model.add_adapter, {"r": 4})
    refused(ValueError, "nothing_proj", model.add_adapter, lora(["nothing_proj"]))
    refused(ValueError, "prompt learning", model.add_adapter, PrefixTuningConfig(num_virtual_tokens=2))
    refused(ValueError, "^name an adapter's folder", model.load_adapter)
    refused(HubError, "has no file adapter_config.json", model.load_adapter, tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q_proj"], "r": 4}')
    refused(HubError, "has no file adapter_model.safetensors", model.load_adapter, tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    refused(HubError, "only pickled weights", model.load_adapter, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no")
    refused(ValueError, "is not a whole safetensors file", model.load_adapter, tmp_path)

    other = plain_model()
    other.add_adapter(lora(["q_proj"]))
    other.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for changes, message in (({"r": 8}, "size mismatch"), ({"target_modules": ["o_proj"]}, "this model asks for")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings | changes))
        refused(ValueError, message, model.load_adapter, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "NEW"}))
    refused(ValueError, "no configuration that this peft knows", model.load_adapter, tmp_path)

    model.add_adapter(lora(), "one")
    modules = [name for name, _ in model.named_modules()]
    refused(ValueError, "^there is an adapter 'one' already", model.add_adapter, lora(), "one")
    refused(ValueError, "^there is no adapter 'on': the model has one$", model.set_adapter, "on")
    refused(ValueError, "nothing_proj", model.add_adapter, lora(["nothing_proj"]), "two")
    assert model.active_adapters() == list(model.peft_config) == ["one"]


def test_models_without_adapters_import_nothing(tmp_path: Path) -> None:
    """peft, and transformers through it, come when they are called; without peft the error names the command."""
    plain_model().save_pretrained(tmp_path)
    code = (
        "import sys, unibody; model = unibody.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "assert not {'peft', 'transformers', 'accelerate'} & sys.modules.keys()\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "import unibody.integrations.availability as a; a.find_spec = lambda name: None\n"
        "try: model.add_adapter(None)\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == ("add_adapter needs peft >= 0.17, which is not installed: pip install 'unibody[peft]'\n"), (
        done.stderr
    )
