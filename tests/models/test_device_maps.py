"""`device_map`: plans equal to transformers', parts on the CPU and on the disk that compute what the whole does, and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.inputs import token_ids
from oracle.quantization import fixtures
from oracle.reference import values
from oracle.zoo import Case, cases, first_case

import unibody
from unibody.device_maps import device_of, plan_device_map

CASE = first_case()
GPTQ = fixtures.FOLDER / "gptqmodel/llama-4bit-g32"


def outputs(model: Any) -> dict[str, Any]:
    with torch.no_grad():
        return values(model(token_ids()))


def assert_same(model: Any, other: Any) -> None:
    found, expected = outputs(model), outputs(other)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_parts_on_the_disk(case: Case, checkpoint: Any, tmp_path: Path) -> None:
    """Every class, with as little on the CPU as one block: same outputs, and saved, the same weights."""
    folder, whole = checkpoint(case).folder, checkpoint(case).load()
    total = sum(parameter.nbytes for parameter in whole.parameters())
    auto = getattr(unibody, case.auto_class)
    model = auto.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": int(total * 0.7)}, offload_folder=tmp_path / "offload"
    )
    assert "disk" in model.hf_device_map.values()
    assert model.device == torch.device("cpu")
    stored = json.loads((tmp_path / "offload/index.json").read_text())
    on_disk = [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.is_meta]
    assert sorted(stored) == sorted(on_disk) != []
    assert all((tmp_path / f"offload/{name}.dat").is_file() for name in on_disk)
    assert_same(model, whole)
    model.save_pretrained(tmp_path / "saved")
    again = auto.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_generation_with_everything_on_the_disk(case: Case, checkpoint: Any, tmp_path: Path) -> None:
    """In bfloat16, which numpy has not; tied weights included."""
    whole = checkpoint(case).load(dtype=torch.bfloat16)
    model = unibody.AutoModelForCausalLM.from_pretrained(
        checkpoint(case).folder, device_map={"": "disk"}, offload_folder=tmp_path, dtype=torch.bfloat16
    )
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.dtype == torch.bfloat16
    assert_same(model, whole)
    ids = token_ids()
    assert torch.equal(model.generate(ids, max_new_tokens=5), whole.generate(ids, max_new_tokens=5))
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize(
    "device_map",
    [
        {"": "disk", "model.layers.1": "cpu"},
        {"": "cpu", "model.layers": "disk", "model.layers.0.mlp": "cpu"},
        {"": "disk", "model": "cpu", "model.embed_tokens": "disk"},
        {"model": "cpu", "model.layers.0.self_attn.q_proj": "disk", "lm_head": "disk"},
    ],
    ids=str,
)
def test_modules_inside_of_others(device_map: dict[str, str], checkpoint: Any, tmp_path: Path) -> None:
    """The nearest module that the map names says where a weight lies."""
    model = unibody.AutoModelForCausalLM.from_pretrained(
        checkpoint(CASE).folder, device_map=device_map, offload_folder=tmp_path
    )
    for name, parameter in model.named_parameters():
        assert parameter.is_meta == (device_of(device_map, name) == "disk"), name
    assert_same(model, checkpoint(CASE).load())


def test_a_weight_beside_modules_with_places_of_their_own(checkpoint: Any, tmp_path: Path) -> None:
    """The bias of BERT's head for masked words stays where the model runs; it is tied to that of the layer inside."""
    case = next(case for case in cases("AutoModelForMaskedLM") if case.model_type == "bert")
    model = unibody.AutoModelForMaskedLM.from_pretrained(
        checkpoint(case).folder, device_map={"": "disk", "cls.predictions.transform": "cpu"}, offload_folder=tmp_path
    )
    assert not model.cls.predictions.bias.is_meta
    assert_same(model, checkpoint(case).load())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 2.0])
@pytest.mark.parametrize("plan", ["auto", "balanced", "sequential"])
def test_plans_are_those_of_transformers(plan: str, share: float, checkpoint: Any, tmp_path: Path) -> None:
    written = checkpoint(CASE)
    limit = int(share * sum(parameter.nbytes for parameter in written.load().parameters()))
    theirs = type(written.original).from_pretrained(
        written.folder, device_map=plan, max_memory={"cpu": limit}, offload_folder=tmp_path
    )
    model = unibody.AutoModelForCausalLM.from_pretrained(
        written.folder, device_map=plan, max_memory={"cpu": limit}, offload_folder=tmp_path / "ours"
    )
    assert model.hf_device_map == getattr(theirs, "hf_device_map", {"": "cpu"})


def test_a_plan_for_a_machine_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accelerators, then the CPU, then the disk; blocks stay whole; room is left for the largest; a quantizer is asked."""
    with torch.device("meta"):
        model = unibody.LlamaForCausalLM(unibody.LlamaConfig(hidden_size=64, num_hidden_layers=6, vocab_size=128))
    block = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
    memory: dict[int | str, int | str] = {0: 3 * block, 1: 2 * block, "cpu": 2 * block}
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda given: given)

    class Careful:
        def adjust_max_memory(self, given: dict[Any, Any]) -> dict[Any, Any]:
            return {place: size if place == "cpu" else size // 2 for place, size in given.items()}

    def places(*options: Any) -> list[Any]:
        found = plan_device_map(model, "sequential", dict(memory), *options)
        return [device_of(found, f"model.layers.{i}") for i in range(6)]

    assert places(torch.float32) == [0, 1, 1, "cpu", "disk", "disk"]
    assert places(torch.float32, Careful()) == [1, "cpu", "disk", "disk", "disk", "disk"]
    assert places(torch.float16) == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "device_map", ["cpu", torch.device("cpu"), {"": "cpu"}, "auto", {"model": "cpu", "lm_head": "cpu"}]
)
def test_one_device(device_map: Any, checkpoint: Any) -> None:
    """The weights are as without a map, mapped from the file, and nothing comes between the calls."""
    model = unibody.AutoModelForCausalLM.from_pretrained(checkpoint(CASE).folder, device_map=device_map)
    assert {str(place) for place in model.hf_device_map.values()} == {"cpu"}
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    assert_same(model, checkpoint(CASE).load())


def test_a_device_needs_no_accelerate(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    unibody.AutoModelForCausalLM.from_pretrained(checkpoint(CASE).folder, device_map="cpu")
    with pytest.raises(
        ImportError, match=r"needs accelerate >= [0-9.]+, which is not installed: pip install 'unibody\[accelerate\]'"
    ):
        unibody.AutoModelForCausalLM.from_pretrained(checkpoint(CASE).folder, device_map="auto")


def test_quantized(tmp_path: Path) -> None:
    """Packed layers stay on the device that runs them; what is plain may go to the disk."""
    plain = unibody.AutoModelForCausalLM.from_pretrained(GPTQ)
    model = unibody.AutoModelForCausalLM.from_pretrained(GPTQ, device_map="auto")
    assert model.hf_device_map == {"": "cpu"}
    ids = token_ids() % 64
    with torch.no_grad():
        expected = plain(ids).logits
        assert torch.equal(model(ids).logits, expected)
        device_map = {"": "cpu", "lm_head": "disk"}
        model = unibody.AutoModelForCausalLM.from_pretrained(GPTQ, device_map=device_map, offload_folder=tmp_path)
        assert model.lm_head.weight.is_meta
        assert torch.equal(model(ids).logits, expected)
    with pytest.raises(
        ValueError, match=r"puts model.layers.0.self_attn.q_proj on the disk, and quantized layers stay on"
    ):
        unibody.AutoModelForCausalLM.from_pretrained(GPTQ, device_map={"": "disk"}, offload_folder=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_quantized_while_loading(checkpoint: Any, tmp_path: Path) -> None:
    folder, config = checkpoint(CASE).folder, unibody.QuantoConfig(weights="int8")
    expected = unibody.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
    device_map = {"": "cpu", "model.embed_tokens": "disk"}
    model = unibody.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map=device_map, offload_folder=tmp_path
    )
    assert model.is_quantized
    assert_same(model, expected)
    config = unibody.GPTQConfig(bits=4, dataset=["a b"])
    with pytest.raises(
        ValueError, match="gptq quantizes with data, which needs all of the model on one device, and device_"
    ):
        unibody.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, device_map=device_map, offload_folder=tmp_path
        )


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"device_map": "auto", "max_memory": {"cpu": 30000}}, ValueError, "on the disk: name a folder for these weights, offload_"),
        ({"device_map": {"model": "cpu"}}, ValueError, "device_map has no place for lm_head.weight: name the modules, or ''"),
        ({"device_map": {"": "cpu", "modle": "cpu"}}, ValueError, "device_map names modle, which is no module of LlamaForCausalLM"),
        ({"device_map": "somewhere"}, ValueError, "asks for 'somewhere', which is no device of torch, and no plan of auto, bal"),
        ({"device_map": "meta"}, ValueError, "asks for 'meta', which holds no weights"),
        ({"device_map": 1.5}, TypeError, "device_map is 1.5, expected 'auto', a device, or a dictionary"),
        ({"device_map": True}, TypeError, "device_map is True, expected 'auto', a device, or a dictionary"),
        ({"device_map": "cpu", "device": "cpu"}, ValueError, "device='cpu' and device_map say the same twice: leave out one"),
    ],
)  # fmt: skip
def test_refused(options: dict[str, Any], kind: type[Exception], message: str, checkpoint: Any) -> None:
    with pytest.raises(kind, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(checkpoint(CASE).folder, **options)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
@pytest.mark.parametrize("device_map", ["cuda", "cuda:1", 0, {"": 0}, {"model": 0, "lm_head": "cpu"}])
def test_an_accelerator_that_is_not_here(device_map: Any, checkpoint: Any) -> None:
    with pytest.raises(ValueError, match="and torch finds no accelerator here: use device_map='cpu'"):
        unibody.AutoModelForCausalLM.from_pretrained(checkpoint(CASE).folder, device_map=device_map)


def test_offload_folder_that_is_a_file(checkpoint: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"offload_folder .*file is a file: name a folder"):
        unibody.AutoModelForCausalLM.from_pretrained(
            checkpoint(CASE).folder, device_map={"": "disk"}, offload_folder=tmp_path / "file"
        )


def test_the_type_that_the_checkpoint_names(checkpoint: Any, tmp_path: Path) -> None:
    """`dtype="auto"` as in transformers, with `attn_implementation`, from the disk."""
    checkpoint(CASE).load(dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    auto = unibody.AutoModelForCausalLM
    assert auto.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    assert type(checkpoint(CASE).original).from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    options = {"dtype": "auto", "attn_implementation": "eager", "device_map": {"": "disk"}}
    model = auto.from_pretrained(tmp_path / "half", **options, offload_folder=tmp_path / "o")
    assert (model.dtype, model.config.attn_implementation) == (torch.bfloat16, "eager")


def test_weights_that_the_checkpoint_lacks(checkpoint: Any, tmp_path: Path) -> None:
    """Drawn, and the others are not drawn anew."""
    folder = checkpoint(cases("AutoModel")[0]).folder
    with pytest.warns(UserWarning, match=r"lacks weights, which are random now: lm_head\.weight"):
        model, info = unibody.AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": "disk"}, offload_folder=tmp_path, output_loading_info=True
        )
    assert info["missing_keys"] == {"lm_head.weight"}
    state = model.state_dict()
    whole = unibody.AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in whole.items())
    assert 0.01 < state["lm_head.weight"].std() < 0.05
