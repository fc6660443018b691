"""AWQ against autoawq and gptqmodel: layouts to the bit, rounding, clipping and the search for scales, checkpoints with logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers import files
from quantizers.files import generated
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody

awq, llama = generated("awq"), generated("llama")
LAYOUTS, PACKED = fixtures.load("gptqmodel/awq_layouts").tensors, fixtures.load("autoawq/packed").tensors
ROUNDED, CLIPPED = fixtures.load("autoawq/rounded").tensors, fixtures.load("autoawq/clipped").tensors
CHECKPOINT = fixtures.FOLDER / "autoawq/llama-gemm-g32"
VALUES = fixtures.load("autoawq/llama-gemm-g32/values").tensors


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(awq.AWQLinear, awq.AwqConfig(**options), weight, bias)


@pytest.mark.parametrize("version", ["gemm", "exllama", "gemv", "gemv_fast", "llm-awq"])
@pytest.mark.parametrize("group", [64, 128])
def test_layouts(group: int, version: str) -> None:
    """gptqmodel's words for given codes, and the codes back."""
    layer = awq.AWQLinear(nn.Linear(256, 64), awq.AwqConfig(group_size=group, version=version))
    name = "gemm" if version == "exllama" else version
    stored = {key.rpartition("/")[2]: tensor for key, tensor in LAYOUTS.items() if key.startswith(f"{group}/{name}/")}
    codes, scales, zeros = (LAYOUTS[f"{group}/{key}"] for key in ("codes", "scales", "zeros"))
    packed = layer.pack_codes(awq.GroupwiseCodes(codes, scales, zeros.to(torch.uint8)))
    assert packed.keys() == stored.keys() == layer.empty_tensors().keys()
    for key, tensor in stored.items():
        assert torch.equal(packed[key], tensor), key
        assert (layer.empty_tensors()[key].shape, layer.empty_tensors()[key].dtype) == (tensor.shape, tensor.dtype)
    read = layer.unpack_codes(stored)
    assert torch.equal(read.codes, codes)
    assert torch.equal(read.zeros.int(), zeros)
    assert torch.equal(read.scales, scales)


@pytest.mark.parametrize("layout", ["gemm", "gemv", "gemv_fast"])
@pytest.mark.parametrize("group", [64, 128])
def test_layers_of_autoawq(group: int, layout: str) -> None:
    """Rounded from the same float16 weight; dequantized as autoawq does."""
    layer = make_layer(PACKED["weight"], PACKED["bias"], group_size=group, version=layout)
    for key, tensor in layer.stored_tensors().items():
        assert torch.equal(tensor, PACKED[f"{group}/{layout}/{key}"]), key
    torch.testing.assert_close(layer.dequantize(torch.float16), PACKED[f"{group}/dequantized"].T, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", sorted({k.rpartition("/")[0] for k in ROUNDED if k.endswith("/scales")}))
def test_rounding(name: str) -> None:
    bits, group, kind = name.split("/")
    found = awq.round_ranges(ROUNDED["weight"], int(bits), int(group), kind == "zero_point")
    assert torch.equal(found.scales, ROUNDED[f"{name}/scales"])
    if kind == "zero_point":
        assert torch.equal(found.zeros.float(), ROUNDED[f"{name}/zeros"])
    assert torch.equal(awq.dequantize_groups(found, torch.float32), ROUNDED[f"{name}/dequantized"])


@pytest.mark.parametrize("name", ["4/zero_point", "4/symmetric", "3/zero_point", "3/symmetric"])
def test_clipping(name: str) -> None:
    bits, kind = name.split("/")
    found = awq.search_clips(CLIPPED["weight"], CLIPPED["inputs"], int(bits), 32, kind == "zero_point")
    assert torch.equal(found, CLIPPED[name])


@pytest.mark.parametrize("bits", [4, 3])
def test_search_for_scales(bits: int) -> None:
    """autoawq's winner for two layers with one input (with its `Tensor.cpu` made to copy, without which it compares wrong weights)."""
    values = fixtures.load("autoawq/scaled").tensors

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(96, 32, bias=False), nn.Linear(96, 48, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((self.first(x), self.second(x).tanh()), dim=-1)

    pair = Pair()
    for i, layer in enumerate((pair.first, pair.second)):
        layer.weight.data.copy_(values[f"weight/{i}"])
    scaling = awq.Scaling(None, [pair.first, pair.second], pair, [((values["inputs"],), {})])
    found = awq.search_scales(scaling, values["inputs"], bits, 32, True)
    torch.testing.assert_close(found, values[f"{bits}/scales"], rtol=1e-5, atol=0)
    assert torch.equal(pair.first.weight, values["weight/0"]), "the weights are as they were"


def quantize(folder: Path, **options: Any) -> Any:
    config = awq.AwqConfig(group_size=32, dataset=list(VALUES["calibration"]), **options)
    quantizer = awq.AwqHfQuantizer(config, pre_quantized=False)
    return llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)


def test_checkpoint(tmp_path: Path) -> None:
    """autoawq's checkpoint gives its logits; saved, it is the same to the bit; dequantized, it computes the same."""
    ids = VALUES["input_ids"].long()
    settings = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    quantizer = awq.AwqHfQuantizer(awq.AwqConfig.from_dict(settings))
    model = llama.LlamaForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32, quantizer=quantizer)
    with torch.no_grad():
        logits = model(ids).logits
    torch.testing.assert_close(logits, VALUES["logits"], rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    stored, saved = load_file(CHECKPOINT / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert saved.keys() == stored.keys()
    assert all(torch.equal(saved[key], tensor.to(saved[key].dtype)) for key, tensor in stored.items())
    plain = quantizer.dequantize(model)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, logits, rtol=1e-5, atol=1e-5)


def test_quantizing_a_model(tmp_path: Path) -> None:
    """autoawq's choice of scales for every group of layers, and nearly all of its codes."""
    full = inputs.llama(num_key_value_heads=4)
    full.save_pretrained(tmp_path)
    model, stored = quantize(tmp_path), load_file(CHECKPOINT / "model.safetensors")
    state, before = model.state_dict(), full.state_dict()
    for i in (0, 1):
        for norm, layers in (
            ("input_layernorm", "q_proj,k_proj,v_proj"),
            ("post_attention_layernorm", "gate_proj,up_proj"),
        ):
            name = f"model.layers.{i}.{norm}.weight"
            torch.testing.assert_close(before[name] / state[name], VALUES[f"scale/{i}/{layers}"], rtol=1e-4, atol=0)
    for name, layer in awq.packed_layers(model).items():
        for key in layer.empty_tensors():
            assert torch.equal(state[f"{name}.{key}"], stored[f"{name}.{key}"]), (name, key)


@torch.no_grad()
@pytest.mark.parametrize("plain", ["q_proj", "k_proj", "gate_proj"])
def test_layers_that_stay_plain_are_scaled_too(plain: str, tmp_path: Path) -> None:
    """What they share with those that are packed is divided: transformers' layer computes what it did, and codes are autoawq's."""
    full = inputs.llama(num_key_value_heads=4)
    full.save_pretrained(tmp_path)
    model, stored = (
        quantize(tmp_path, modules_to_not_convert=["lm_head", plain]),
        load_file(CHECKPOINT / "model.safetensors"),
    )
    norm, group = ("post_attention_layernorm", "mlp") if plain == "gate_proj" else ("input_layernorm", "self_attn")
    (before, theirs), (after, ours) = (
        (getattr(block, norm), getattr(getattr(block, group), plain))
        for block in (full.model.layers[0], model.model.layers[0])
    )
    assert type(ours) is nn.Linear
    x = torch.randn(5, 64)
    torch.testing.assert_close(ours(after(x)), theirs(before(x)), rtol=1e-4, atol=1e-5)
    for name, layer in awq.packed_layers(model).items():
        for key in layer.empty_tensors():
            assert torch.equal(layer.stored_tensors()[key], stored[f"{name}.{key}"]), (name, key)


def test_three_bits_gain_most() -> None:
    """With 3 bits, scales and clips together bring a layer's outputs nearer than round-to-nearest does."""
    weight, x = CLIPPED["weight"], CLIPPED["inputs"] * torch.linspace(0.1, 3, 96)
    linear = nn.Linear(96, 64, bias=False)
    linear.weight.data.copy_(weight)
    scales = awq.search_scales(awq.Scaling(None, [linear], linear, [((x,), {})]), x, 3, 32, True)
    clips = awq.search_clips(weight * scales, x / scales, 3, 32, True)
    clipped = (weight * scales).view(64, 3, 32).clamp(-clips, clips).flatten(1)
    errors = []
    for candidate, inverse in ((clipped, 1 / scales), (weight * scales, 1 / scales), (weight, 1)):
        near = awq.dequantize_groups(awq.round_ranges(candidate, 3, 32, True), torch.float32) * inverse
        errors.append(float((x @ (near - weight).T).square().mean()))
    assert errors[0] < errors[1] < 0.8 * errors[2]


def test_three_bits_beat_round_to_nearest(tmp_path: Path) -> None:
    """Perplexity of a model on what it was calibrated with; its formats have words of 4 bits, which hold codes of 3, too."""
    ids, full = VALUES["calibration"].long(), inputs.llama(num_key_value_heads=4)
    full.save_pretrained(tmp_path)
    config = awq.AwqConfig(group_size=32, dataset=list(ids))
    config.bits = 3
    quantizer = awq.AwqHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantizer=quantizer)
    nearest, losses = inputs.llama(num_key_value_heads=4), []
    for name, packed in awq.packed_layers(model).items():
        assert packed.unpack_codes(packed.stored_tensors()).codes.max() == 7
        linear = nearest.get_submodule(name)
        linear.weight.data = packed.unpack(packed.quantize(linear.weight.detach()), torch.float32)
    with torch.no_grad():
        targets = full(ids).logits.softmax(-1).flatten(0, 1)  # the model has random weights: it is its own measure
        for one in (model, nearest):
            losses += [nn.functional.cross_entropy(one(ids).logits.flatten(0, 1), targets)]
    assert losses[0].exp() < 0.8 * losses[1].exp()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("version", ["gemm", "gemv", "gemv_fast"])
def test_outputs(version: str, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(batch)
    weight, bias = torch.randn(48, 128), torch.randn(48)
    layer = make_layer(weight, bias, version=version, group_size=64).to(dtype)
    x = torch.randn(2, batch, 128).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, 48), dtype)
    assert layer.kernel == ("int4pack_cpu" if dtype == torch.bfloat16 else "torch")
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - exact).abs().max() <= bound * exact.abs().max()
    given = x.clone().requires_grad_()
    layer(given).float().sum().backward()
    expected = layer.dequantize(dtype).float().sum(0).expand_as(given)
    assert (given.grad.float() - expected).abs().max() <= 2 * bound * expected.abs().max()


def test_fused_layers(tmp_path: Path) -> None:
    """Layers with one input run as one: the same results, the same tensors saved, and each its own again after a move."""
    ids = VALUES["input_ids"].long()
    models = []
    for options in ({}, {"do_fuse": True, "fuse_max_seq_len": 64}):
        quantizer = awq.AwqHfQuantizer(awq.AwqConfig(group_size=32, **options))
        models.append(llama.LlamaForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.bfloat16, quantizer=quantizer))
    plain, fused = models
    kernels = {name.rpartition(".")[2]: layer.kernel for name, layer in awq.packed_layers(fused).items()}
    assert {name for name, kernel in kernels.items() if kernel == "fused"} == {
        "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj",
    }  # fmt: skip
    with torch.no_grad():
        expected = plain(ids).logits
        assert torch.equal(fused(ids).logits, expected)
        assert fused.model.layers[0].mlp.up_proj.shared.y is None, "nothing is kept"
    saved, stored = fused.state_dict(), plain.state_dict()
    assert saved.keys() == stored.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in stored.items())
    fused.float()
    assert fused.model.layers[0].mlp.up_proj.shared is None
    with torch.no_grad():
        assert torch.equal(fused(ids).logits, plain.float()(ids).logits)
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    for chosen in ({"mlp": ["w1", "w3", "w2"]}, {"mlp": ["w1", "w3", "w2"], "attention": attention}):
        config = awq.AwqConfig(group_size=32, do_fuse=True, fuse_max_seq_len=8, modules_to_fuse=chosen)
        with pytest.raises(ValueError, match="modules_to_fuse names no packed layers of the model"):
            llama.LlamaForCausalLM.from_pretrained(CHECKPOINT, quantizer=awq.AwqHfQuantizer(config))


@pytest.mark.parametrize("name", ["mistral", "qwen2", "gemma", "gemma2"])
def test_other_models(name: str, tmp_path: Path) -> None:
    """Scaling leaves what a block computes as it is: norms that add one to their weight, biases, grouped heads, norms around layers."""
    module = generated(name)
    prefix = name.capitalize()
    config = getattr(module, f"{prefix}Config")(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(module, f"{prefix}ForCausalLM")(config).eval()
    ids = torch.randint(0, 64, (2, 16))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.rand_like(parameter) * 0.5)
    with torch.no_grad():
        expected = model(ids).logits
        block = model.model.layers[0]
        seen: list[Any] = []
        hook = block.register_forward_pre_hook(lambda _, a, k: seen.append((a, k)), with_kwargs=True)
        model(ids)
        hook.remove()
        linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
        run = lambda: [block(*seen[0][0], **seen[0][1])]  # noqa: E731
        scalings, _, outputs = awq.find_scalings(block, linears, run)
        assert len(scalings) == 3, "qkv, gate and up, down; o has fewer rows before it than columns"
        awq.require_scalable(scalings, outputs, run)
        for scaling in scalings:
            awq.apply_scales(scaling, torch.rand(scaling.layers[0].in_features) + 0.5)
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_norm_that_is_read_elsewhere_is_refused(tmp_path: Path) -> None:
    """Where the residual is taken after the norm, as in BERT, nothing can be moved into the columns."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.query, self.key = nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return y + self.query(y) * self.key(y)

    torch.manual_seed(0)
    block, x = Block(), torch.randn(2, 8, 32)

    @torch.no_grad()
    def run() -> list[Tensor]:
        return [block(x)]

    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    scalings, _, outputs = awq.find_scalings(block, [block.query, block.key], run)
    with pytest.raises(ValueError, match="what a norm returns is read by more than linear layers"):
        awq.require_scalable(scalings, outputs, run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
    torch.manual_seed(0)
    config = unibody.BertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    unibody.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="what a norm returns is read by more than linear layers"):
        unibody.AutoModelForSequenceClassification.from_pretrained(
            tmp_path, quantization_config=unibody.AwqConfig(group_size=32, dataset=list(VALUES["calibration"]))
        )


def test_configuration() -> None:
    config = awq.AwqConfig(4, 64, False, "GEMV", "auto", None, None, None, ["lm_head"])
    assert (config.version, config.format, config.modules_to_not_convert) == ("gemv", "gemv", ["lm_head"])
    for case in fixtures.load_json("gptqmodel/awq_config"):
        mine = awq.AwqConfig(**case["arguments"])
        found = mine.to_dict()
        set_here = {name for name in awq.AwqConfig.written_if_set if name in found}
        assert set_here == case["arguments"].keys() & {*awq.AwqConfig.written_if_set}, "what 5.23 drops is kept if set"
        assert {key: value for key, value in found.items() if key not in set_here} == case["to_dict"]
        assert awq.AwqConfig.from_dict(found) == mine
    assert awq.AwqConfig(version="exllama").exllama_config == {
        "version": 2,
        "max_input_len": 2048,
        "max_batch_size": 8,
    }
    assert awq.AwqConfig(backend="torch_awq").kernel == "torch"
    for bad, message in (
        ({"bits": 3}, "bits is 3, expected 4: its formats have words of eight codes"),
        ({"version": "marlin"}, "version is 'marlin', expected one of 'gemm'"),
        ({"backend": "fast"}, "backend is 'fast', expected one of 'auto'"),
        ({"group_size": 0}, r"group_size is 0, expected -1"),
        ({"zero_point": 1}, "zero_point is 1"),
        ({"do_fuse": True}, "do_fuse is True, and fuse_max_seq_len is None"),
        ({"modules_to_not_convert": "lm_head"}, "modules_to_not_convert is 'lm_head'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            awq.AwqConfig(**bad)
    for idle in ({"damp_percent": 0.2}, {"desc_act": True}, {"batch_size": 2}, {"backend": "marlin"}):
        with pytest.warns(UserWarning, match=f"{next(iter(idle))} changes nothing in AWQ"):
            awq.AwqConfig(**idle)


def test_calibration_is_asked_for(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    quantizer = awq.AwqHfQuantizer(awq.AwqConfig(group_size=32), pre_quantized=False)
    with pytest.raises(ValueError, match="dataset is empty: quantization needs texts"):
        llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quantizer)
