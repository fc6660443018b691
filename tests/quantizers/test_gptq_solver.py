"""GPTQ's solver and its calibration: the reference's codes, and what each setting changes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs
from quantizers.test_gptq import LAYERS, PACKED_TENSORS, gptq, llama, packed_layer
from safetensors.torch import load_file
from torch import nn

import unibody

SOLVED = fixtures.load("gptqmodel/solved").tensors
AWARE = fixtures.load("gptqmodel/group_aware").tensors


@pytest.mark.parametrize("name", [name for name in LAYERS if "static" not in name])
def test_solver(name: str) -> None:
    """The codes that gptqmodel finds for the same weight and inputs; of 6,144 a few may fall on the other side of a tie."""
    weight, hidden = SOLVED["weight"], SOLVED["inputs"].float()
    layer = packed_layer(name, "gptq_v2")
    layer.config.desc_act = "desc_act" in name
    hessian = 2 / len(hidden) * hidden.T @ hidden
    solved = gptq.solve_codes(weight, hessian, layer, damp=0.01 if "damp" in name else 0.05)
    assert torch.equal(solved.zeros.int(), SOLVED[f"{name}/zeros"])
    assert torch.equal(solved.groups, SOLVED[f"{name}/g_idx"])
    assert (solved.codes != SOLVED[f"{name}/codes"]).sum() <= 19
    torch.testing.assert_close(solved.scales, SOLVED[f"{name}/scales"], rtol=1e-3, atol=0)


def test_quantizing_a_model(tmp_path: Path) -> None:
    """Where both see the same inputs, the tensors that gptqmodel makes of the same model and data; logits as near as its own."""
    folder = fixtures.FOLDER / "gptqmodel/llama-4bit-g32"
    values = fixtures.load("gptqmodel/llama-4bit-g32/values").tensors
    full = inputs.llama()
    full.save_pretrained(tmp_path)
    order = [["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"], ["self_attn.o_proj"]]
    order += [["mlp.up_proj", "mlp.gate_proj"], ["mlp.down_proj"]]
    config = gptq.GPTQConfig(
        bits=4,
        group_size=32,
        damp_percent=0.05,
        act_group_aware=False,
        dataset=list(values["calibration"]),
        modules_in_block_to_quantize=order,
    )
    quantizer = gptq.GptqHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantizer=quantizer)
    stored, layers = load_file(folder / "model.safetensors"), gptq.packed_layers(model)
    assert len(layers) == 14
    for name, layer in layers.items():
        mine, theirs = layer.stored_tensors(), {key: stored[f"{name}.{key}"] for key in PACKED_TENSORS}
        assert torch.equal(mine["qzeros"], theirs["qzeros"]), name
        if "layers.0.self_attn" in name and "o_proj" not in name:
            # Later layers see what these make of their inputs, by scales in float16 here and in float32 there.
            assert torch.equal(mine["qweight"], theirs["qweight"]), name
            assert torch.equal(mine["scales"], theirs["scales"]), name
    model.save_pretrained(tmp_path / "quantized")
    settings = json.loads((tmp_path / "quantized/config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert (settings["bits"], settings["dataset"]) == (4, None)
    again = llama.LlamaForCausalLM.from_pretrained(
        tmp_path / "quantized", quantizer=gptq.GptqHfQuantizer(gptq.GPTQConfig.from_dict(settings))
    )
    with torch.no_grad():
        assert torch.equal(again(values["calibration"].long()).logits, model(values["calibration"].long()).logits)
    theirs = llama.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantizer=gptq.GptqHfQuantizer(gptq.GPTQConfig(bits=4, group_size=32))
    )
    for name, linear in list(full.named_modules()):
        if isinstance(linear, nn.Linear) and name in layers:
            linear.nearest = gptq.GPTQLinear(linear, config)
            linear.nearest.hold(linear.nearest.quantize(linear.weight.detach()))
    ids = values["calibration"].long()
    with torch.no_grad():
        exact = full(ids).logits
        mine, gptqmodels = ((m(ids).logits - exact).square().mean() for m in (model, theirs))
        for linear in [module for module in full.modules() if hasattr(module, "nearest")]:
            linear.weight.copy_(linear.nearest.dequantize())
        rounded = (full(ids).logits - exact).square().mean()
    assert mine <= 1.02 * gptqmodels < 0.8 * rounded, "mean square error of the logits of the calibration data"


def quantized(folder: Path, **options: Any) -> Any:
    """The tiny Llama quantized with 4 bits; `dataset` is given or token ids of two lengths."""
    if not folder.joinpath("config.json").exists():
        inputs.llama().save_pretrained(folder)
    ids = [torch.arange(n) * 7 % 64 for n in (24, 17, 24, 20)]
    config = gptq.GPTQConfig(**{"bits": 4, "group_size": 32, "dataset": ids, **options})
    quantizer = gptq.GptqHfQuantizer(config, pre_quantized=False)
    return llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)


def same(one: Any, other: Any) -> bool:
    found, expected = one.state_dict(), other.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_parameters_change_the_result_as_they_should(tmp_path: Path) -> None:
    """Each parameter of the making changes the tensors, or where it is only about how, it does not."""
    usual = quantized(tmp_path)
    assert same(usual, quantized(tmp_path))
    ids = [torch.arange(24) * 7 % 64] * 2
    for options in (
        {"bits": 8}, {"group_size": 64}, {"damp_percent": 0.5}, {"desc_act": True}, {"sym": False}, {"model_seqlen": 8},
        {"true_sequential": False, "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.down_proj"]]},
        {"act_group_aware": False}, {"dataset": ids}, {"batch_size": 2, "pad_token_id": 3}, {"checkpoint_format": "gptq_v2"},
    ):  # fmt: skip
        other = quantized(tmp_path, **options)
        assert other.state_dict().keys() != usual.state_dict().keys() or any(
            tensor.shape != usual.state_dict()[name].shape or not torch.equal(tensor, usual.state_dict()[name])
            for name, tensor in other.state_dict().items()
        ), options
    assert same(usual, quantized(tmp_path, cache_block_outputs=False))
    assert same(usual, quantized(tmp_path, block_name_to_quantize="model.layers"))
    attention, mlp = (
        [[f"self_attn.{n}_proj"] for n in ("k", "q", "v", "o")],
        [[f"mlp.{n}_proj"] for n in ("up", "gate", "down")],
    )
    assert same(usual, quantized(tmp_path, modules_in_block_to_quantize=[*attention, *mlp])), (
        "one by one, the same inputs"
    )
    few = quantized(tmp_path, modules_in_block_to_quantize=[["self_attn.k_proj", "self_attn.q_proj"]])
    assert {name.rpartition(".")[2] for name in gptq.packed_layers(few)} == {"q_proj", "k_proj"}
    together = quantized(tmp_path, dataset=ids, batch_size=2).state_dict()
    for name, tensor in quantized(tmp_path, dataset=ids).state_dict().items():
        torch.testing.assert_close(tensor.float(), together[name].float(), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="batch_size is 2 and samples differ in length: set pad_token_id"):
        quantized(tmp_path, batch_size=2)


def test_lists_of_layers_one_after_the_other(tmp_path: Path) -> None:
    """The documented example: the layers of a list are quantized at once, those of the next see what they are then given."""
    first, last = ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"], ["self_attn.o_proj"]
    after, beside = (
        quantized(tmp_path, modules_in_block_to_quantize=lists) for lists in ([first, last], [[*first, *last]])
    )
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        mine, other = (getattr(model.model.layers[0].self_attn, name).qweight for model in (after, beside))
        assert torch.equal(mine, other) == (name != "o_proj"), name
    assert same(beside, quantized(tmp_path, modules_in_block_to_quantize=[first, last], true_sequential=False))


def test_layers_of_their_own(tmp_path: Path) -> None:
    """`dynamic` gives layers what the whole model would be given, by the first pattern that fits; others stay plain."""
    patterns = {
        "-:.*o_proj": {},
        r"+:.*layers\.0\.self_attn": {"bits": 8},
        ".*q_proj": {"group_size": 64, "desc_act": True},
    }
    model = quantized(tmp_path, dynamic=patterns, cache_block_outputs=False)
    layers = gptq.packed_layers(model)
    assert len(layers) == 12
    eight = gptq.packed_layers(quantized(tmp_path, bits=8))
    for name in (f"model.layers.0.self_attn.{letter}_proj" for letter in "qkv"):
        mine = layers[name].stored_tensors()
        assert all(torch.equal(mine[key], tensor) for key, tensor in eight[name].stored_tensors().items()), name
    last = layers["model.layers.1.self_attn.q_proj"].stored_tensors()
    assert last["scales"].shape == (1, 64)
    model.save_pretrained(tmp_path / "quantized")
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "quantized"), inputs.token_ids(2, 8)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    with pytest.raises(ValueError, match="bits is 5, expected one of 2, 3, 4, 8"):
        gptq.GPTQConfig(bits=4, dynamic={".*": {"bits": 5}})
    with pytest.raises(ValueError, match=r"dynamic has '\+:\(', no regular expression \(missing \)"):
        gptq.GPTQConfig(bits=4, dynamic={"+:(": {}})


@pytest.mark.parametrize("options", [{"group_size": 64}, {"modules_in_block_to_quantize": [["mlp.down_proj"]]}])
def test_plain_layers_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    """gptqmodel wants a pattern for each layer of a block that is plain, transformers the names of those that are packed."""
    inputs.llama(hidden_size=96).save_pretrained(tmp_path)
    model = quantized(tmp_path, **options)
    model.save_pretrained(tmp_path / "quantized")
    written = json.loads((tmp_path / "quantized/config.json").read_text())["quantization_config"]
    assert written["modules_in_block_to_quantize"] == [["mlp.down_proj"]]
    for name in (name for name, module in full_linears(model) if name != "lm_head"):
        found = [pattern for pattern in written["dynamic"] if re.match(pattern.removeprefix("-:"), name)]
        assert len(found) == (not name.endswith("down_proj")), name
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "quantized"), inputs.token_ids(2, 8)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.quantization_config == written


def full_linears(model: Any) -> list[tuple[str, Any]]:
    """All linear layers, packed and plain."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "in_features")]


@pytest.mark.parametrize("name", sorted({key.rpartition("/")[0] for key in AWARE if key.endswith("/codes")}))
def test_solver_that_is_aware_of_groups(name: str) -> None:
    """gptqmodel's codes with `act_group_aware`, its usual way, on columns that differ in size."""
    bits, symmetric, group = int(name.partition("/")[0]), name.endswith("/sym"), 64 if "group_64" in name else 32
    hidden = AWARE["inputs"].float()
    config = gptq.GPTQConfig(bits=bits, group_size=group, sym=symmetric)
    layer = gptq.GPTQLinear(nn.Linear(192, 32, bias=False), config)
    solved = gptq.solve_codes(AWARE["weight"], 2 / len(hidden) * hidden.T @ hidden, layer, damp=0.05)
    assert torch.equal(solved.zeros.int(), AWARE[f"{name}/zeros"])
    assert torch.equal(solved.groups, AWARE[f"{name}/g_idx"])
    assert (solved.codes != AWARE[f"{name}/codes"]).sum() <= 19, "of 6,144 a few may fall on the other side of a tie"
    torch.testing.assert_close(solved.scales, AWARE[f"{name}/scales"], rtol=1e-5, atol=0)
    apart = gptq.GPTQConfig(bits=bits, group_size=group, sym=symmetric, act_group_aware=False)
    other = gptq.GPTQLinear(nn.Linear(192, 32, bias=False), apart)
    plain = gptq.solve_codes(AWARE["weight"], 2 / len(hidden) * hidden.T @ hidden, other, damp=0.05)
    assert (plain.codes != AWARE[f"{name}/codes"]).sum() > 100, "without it they would not be these"


def test_columns_by_activation_within_their_groups() -> None:
    """`act_group_aware`: columns keep their groups, and the error of the outputs falls."""
    weight, hidden = SOLVED["weight"], SOLVED["inputs"].float() * torch.linspace(0.2, 4, SOLVED["weight"].shape[1])
    hessian = 2 / len(hidden) * hidden.T @ hidden
    errors = {}
    for aware in (False, True):
        config = gptq.GPTQConfig(bits=3, group_size=32, act_group_aware=aware)
        layer = gptq.GPTQLinear(nn.Linear(weight.shape[1], len(weight), bias=False), config)
        solved = gptq.solve_codes(weight, hessian, layer, damp=0.05)
        assert torch.equal(solved.groups, torch.arange(weight.shape[1], dtype=torch.int32) // 32)
        apart = gptq.dequantize_groups(solved, torch.float32) - weight
        errors[aware] = float((hidden @ apart.T).square().mean())
    assert errors[True] < 0.95 * errors[False]


def test_few_inputs(tmp_path: Path) -> None:
    """A Hessian of fewer inputs than columns is damped more until it can be inverted; one of no numbers is refused."""
    torch.manual_seed(0)
    weight, hidden = torch.randn(32, 256), torch.randn(4, 256)
    layer = gptq.GPTQLinear(nn.Linear(256, 32, bias=False), gptq.GPTQConfig(bits=4, group_size=32))
    hessian = hidden.T @ hidden / 2
    few, usual = (gptq.solve_codes(weight, hessian, layer, damp) for damp in (1e-9, 0.010000001))
    assert torch.equal(few.codes, usual.codes), "one step more"
    with pytest.raises(
        ValueError, match=r"Hessian cannot be inverted with damp_percent 0.1: its largest entry is nan"
    ):
        gptq.solve_codes(weight, hessian * torch.nan, layer, 0.1)


def test_three_bits_beat_round_to_nearest(tmp_path: Path) -> None:
    """The tiny model's perplexity on what it was calibrated with."""
    values = fixtures.load("gptqmodel/llama-4bit-g32/values").tensors
    ids = values["calibration"].long()
    full = inputs.llama()
    full.save_pretrained(tmp_path)
    with torch.no_grad():
        targets = full(ids).logits.softmax(-1)  # the model has random weights: it is its own measure
    model = quantized(tmp_path, bits=3, dataset=list(ids))
    nearest = inputs.llama()
    for name, packed in gptq.packed_layers(model).items():
        linear = nearest.get_submodule(name)
        linear.weight.data.copy_(packed.unpack(packed.quantize(linear.weight.detach()), torch.float32))
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(m(ids).logits.flatten(0, 1), targets.flatten(0, 1))
            for m in (model, nearest)
        ]
    assert losses[0].exp() < losses[1].exp()


def test_what_calibration_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts with a tokenizer as an object or a folder are their ids; named data sets come through `datasets`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokens").mkdir()
    tokenizer.save(str(tmp_path / "tokens/tokenizer.json"))
    ids = [[5, 9, 17, 3, 40, 41, 2], [8, 8, 1, 63]]
    texts = [" ".join(f"w{i}" for i in row) for row in ids]
    expected = quantized(tmp_path, dataset=ids)
    assert same(expected, quantized(tmp_path, dataset=texts, tokenizer=tokenizer))
    for library in (transformers, unibody):
        fast = library.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        assert same(expected, quantized(tmp_path, dataset=texts, tokenizer=fast))
    assert same(expected, quantized(tmp_path, dataset=texts, tokenizer=str(tmp_path / "tokens")))
    asked = []

    def load_dataset(path: str, **options: Any) -> Any:
        asked.append((path, options))
        if path == "allenai/c4":
            raise ConnectionError("no network")
        return [{"text": "heading"}, *({"text": " ".join([text] * 60)} for text in texts)]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    found = quantized(tmp_path, dataset="wikitext2", tokenizer=tokenizer, model_seqlen=4)
    long = [(row * 60)[:4] for row in ids]
    monkeypatch.setattr(Tokenizer, "from_pretrained", {"owner/name": tokenizer}.__getitem__)
    assert same(found, quantized(tmp_path, dataset=texts, tokenizer="owner/name", model_seqlen=4))
    assert asked[0] == ("Salesforce/wikitext", {"name": "wikitext-2-raw-v1", "split": "train", "streaming": True})
    assert same(found, quantized(tmp_path, dataset=long))
    monkeypatch.setattr(Tokenizer, "from_pretrained", lambda name: (_ for _ in ()).throw(OSError("no network")))
    for options, message in (
        ({"dataset": None}, "dataset is empty: quantization needs texts"),
        ({"dataset": ["text"]}, "dataset holds texts, and tokenizer is None"),
        ({"dataset": "mine"}, "dataset is 'mine', expected one of wikitext2, c4, c4-new"),
        ({"dataset": "c4"}, r"dataset 'c4' cannot be fetched \(no network\): pass a list of texts"),
        ({"dataset": ["x"], "tokenizer": "some/id"}, "tokenizer 'some/id' is no folder with a tokenizer.json"),
    ):
        with pytest.raises(ValueError, match=message):
            quantized(tmp_path, **options)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="dataset 'c4' is read by `datasets`: install it"):
        quantized(tmp_path, dataset="c4")


def test_encoders(tmp_path: Path) -> None:
    """BERT, whose forward knows of no cache: nearer to the plain model than its weights rounded to nearest."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    plain = unibody.AutoModelForMaskedLM.from_config(
        unibody.BertConfig(vocab_size=64, max_position_embeddings=64, **sizes)
    )
    for parameter in plain.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5)  # layers that say more than the residual beside them
    plain.eval().save_pretrained(tmp_path)
    ids = torch.randint(0, 64, (16, 32))
    config = unibody.GPTQConfig(bits=3, group_size=32, dataset=list(ids))
    model = unibody.AutoModelForMaskedLM.from_pretrained(tmp_path, quantization_config=config)
    nearest = unibody.AutoModelForMaskedLM.from_pretrained(tmp_path)
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "stored_tensors")}
    assert len(layers) == 12, "the encoder's"
    for name, packed in layers.items():
        linear = nearest.get_submodule(name)
        linear.weight.data.copy_(packed.unpack(packed.quantize(linear.weight.detach()), torch.float32))
    with torch.no_grad():
        exact = plain(ids).logits
        mine, rounded = ((m(ids).logits - exact).square().mean() for m in (model, nearest))
    assert mine < 0.8 * rounded
