"""LoRA beside packed layers of every method: the output, the gradients, merging; and QLoRA from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.packed import CONFIGS, packed_model, plain_model
from oracle.inputs import token_ids
from peft import IA3Config, LoraConfig
from quantizers.files import as_bytes
from torch import nn

import unibody

TARGETS = ["q_proj", "down_proj"]
every_method = pytest.mark.parametrize("method", CONFIGS)


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules=TARGETS, **{"init_lora_weights": False, **options})


@every_method
def test_output_and_gradients(method: str) -> None:
    """y = W x + s B A x to the last bit of float32; only A and B get gradients, those of the dequantized model."""
    model, x = packed_model(method), torch.randn(3, 256)
    base = model.model.layers[1].mlp.down_proj
    expected = base(x)
    model.add_adapter(lora(lora_alpha=12))
    layer = model.model.layers[1].mlp.down_proj
    assert layer.base_layer is base
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected + 3 * (x @ a.T @ b.T), rtol=1e-6, atol=1e-6)

    ids = token_ids()
    model.train()(ids, labels=ids).loss.backward()
    gradients = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    assert len(gradients) == 8
    assert all("lora_" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())


def test_layers_that_round_in_every_pass(tmp_path: Path) -> None:
    """BitNet's online layers take an adapter beside what they round to, and no adapter can be rounded with it."""
    plain_model().save_pretrained(tmp_path)
    config = unibody.BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    base, x = model.model.layers[1].mlp.down_proj, torch.randn(3, 256)
    expected = base(x).detach()
    model.add_adapter(lora(lora_alpha=12))
    layer = model.model.layers[1].mlp.down_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected + 3 * (x @ a.T @ b.T), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"cannot be merged into bitnet: .*keep it beside the layer"):
        model.merge_and_unload()


@pytest.mark.parametrize("method", ["llm_int8", "nf4", "gptq", "hqq"])
def test_gradients_are_those_of_the_dequantized_model(method: str) -> None:
    """Where the input has a gradient, packed layers compute with their dequantized weight."""
    packed = packed_model(method)
    plain = plain_model()
    for name, module in packed.named_modules():
        if hasattr(module, "dequantize"):
            plain.get_submodule(name).weight = nn.Parameter(module.dequantize())
    found, ids = [], token_ids()
    for model in (packed, plain):
        torch.manual_seed(1)
        model.add_adapter(lora())
        inputs = model.model.embed_tokens(ids).detach().requires_grad_()
        model.train()(inputs_embeds=inputs, labels=ids).loss.backward()
        found.append({name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5)


@every_method
def test_merging(method: str) -> None:
    """Merged weights are W + s B A rounded to the format again, and unmerging brings back the very same bytes."""
    model = packed_model(method)
    model.add_adapter(lora())
    layer = model.model.layers[1].mlp.down_proj
    base, delta = layer.base_layer, layer.get_delta_weight("default").detach()
    before = {name: tensor.clone() for name, tensor in base.stored_tensors().items()}
    weight = base.dequantize()
    if method == "bitnet":
        with pytest.raises(ValueError, match=r"cannot be merged into bitnet: .*keep it beside the layer"):
            model.merge_and_unload()
        assert model.active_adapters() == ["default"]
        return
    layer.merge()
    rounding = (base.dequantize() - weight - delta).norm() / (weight + delta).norm()
    assert rounding < 0.15, "four bits"
    layer.unmerge()
    assert all(torch.equal(as_bytes(t), as_bytes(before[name])) for name, t in base.stored_tensors().items())

    with torch.no_grad():
        noise = packed_model(method)(token_ids()).logits - plain_model()(token_ids()).logits
        logits = model(token_ids()).logits
        merged = model.merge_and_unload()
        assert not any("lora" in name for name, _ in merged.named_modules())
        assert merged.model.layers[1].mlp.down_proj is base
        assert (merged(token_ids()).logits - logits).norm() < 2 * noise.norm(), "no more than what packing does"


def test_what_packed_layers_cannot_do(tmp_path: Path) -> None:
    """Refused with the remedy, and the model is as it was."""
    model = packed_model("nf4")
    logits = model(token_ids()).logits
    with pytest.raises(ValueError, match=r"^use_dora is not known for packed layers: leave it out, or dequantize"):
        model.add_adapter(lora(use_dora=True))
    with pytest.raises(ValueError, match=r"^init_lora_weights='pissa' starts from the base's weight, which is packed"):
        model.add_adapter(lora(init_lora_weights="pissa"))
    with pytest.raises(ValueError, match=r"^IA3Config has no layer for packed weights: use LoRA, or dequantize"):
        model.add_adapter(IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    assert not any("lora" in name for name, _ in model.named_modules())
    assert torch.equal(model(token_ids()).logits, logits)
    model.add_adapter(lora())
    model.model.layers[1].mlp.down_proj.lora_A["default"].weight.data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"not finite: the adapter is broken$"):
        model.merge_and_unload()
    assert not any(getattr(layer, "merged_adapters", []) for layer in model.modules())


def test_qlora(tmp_path: Path) -> None:
    """From a plain checkpoint, loaded in NF4: three steps lower the loss; the adapter alone is saved, and fits again."""
    plain_model().save_pretrained(tmp_path / "plain")
    nf4 = CONFIGS["nf4"]()
    load = unibody.AutoModelForCausalLM.from_pretrained
    model = load(tmp_path / "plain", quantization_config=nf4)
    model.add_adapter(LoraConfig(r=8, target_modules=TARGETS, lora_dropout=0.0))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    ids, losses = token_ids(4, 24), []
    packed = model.model.layers[0].self_attn.q_proj.base_layer.weight.clone()
    for _ in range(4):
        loss = model.train()(ids, labels=ids).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.3
    assert torch.equal(model.model.layers[0].self_attn.q_proj.base_layer.weight, packed)

    model.save_pretrained(tmp_path / "adapter")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = load(tmp_path / "plain", quantization_config=CONFIGS["nf4"]())
    again.load_adapter(tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model.eval()(ids).logits)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "merged")(ids).logits, merged(ids).logits)


def test_peft_in_its_own_wrapper() -> None:
    """`get_peft_model` on a packed model, once its configuration knows the packed layers."""
    from peft import get_peft_model

    from unibody.integrations import register_packed_layers

    model, ids = packed_model("gptq"), token_ids()
    config = register_packed_layers(lora(task_type="CAUSAL_LM"), model)
    ours = packed_model("gptq")
    torch.manual_seed(3)
    ours.add_adapter(lora())
    torch.manual_seed(3)
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        assert torch.equal(wrapped(input_ids=ids).logits, ours(ids).logits)
        assert torch.equal(
            wrapped.generate(input_ids=ids[:1], max_new_tokens=5), ours.generate(ids[:1], max_new_tokens=5)
        )
