"""Quantized checkpoints through a Hub: transformers opens what we pushed, and we open what it pushed, with the same logits."""

from __future__ import annotations

import re

from hub.conftest import Client
from hub.loopback import Hub

BEGIN = """
from huggingface_hub import HfApi
import torchao.quantization
import transformers

METHODS = {
    "nested": ("BitsAndBytesConfig", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "wide": ("BitsAndBytesConfig", {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"}),
    "compressed": ("CompressedTensorsConfig", {"config_groups": {"W8A8": ["Linear"]}, "ignore": ["lm_head"]}),
    "torchao": ("TorchAoConfig", {"quant_type": torchao.quantization.Int8WeightOnlyConfig()}),
}
def quantized(library, name):
    config, options = METHODS[name]
    config = getattr(library, config)(**options)
    return library.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
def logits(model):
    with torch.no_grad():  # in training mode: for inference, bitsandbytes' kernel rounds float32 inputs to bfloat16 on some CPUs
        return model.train()(torch.tensor([[1, 5, 9, 2, 8]])).logits
def differ(model, other):
    return (logits(model) - logits(other)).abs().max().item()
def kind(model):
    return type(model.model.layers[0].mlp.up_proj.weight).__name__
plain = unibody.AutoModelForCausalLM.from_pretrained(folder)
"""


def test_pushed_by_us(hub: Hub, client: Client) -> None:
    """transformers finds the method by itself; what it computes is far from the plain model's logits and on top of ours."""
    found = client(f"""{BEGIN}
for name in METHODS:
    ours = quantized(unibody, name)
    commit = ours.push_to_hub(f"alice/{{name}}", revision="packed").oid
    theirs = transformers.AutoModelForCausalLM.from_pretrained(f"alice/{{name}}", revision="packed")
    pinned = transformers.AutoModelForCausalLM.from_pretrained(f"alice/{{name}}", revision=commit)
    answers[name] = kind(theirs), differ(theirs, ours), differ(pinned, ours), differ(theirs, plain)
""")
    assert {name: packed for name, (packed, *_) in found.items()} == {
        "nested": "Params4bit", "wide": "Params4bit", "torchao": "Int8Tensor",
        "compressed": "Parameter",  # transformers decompresses it when it loads
    }  # fmt: skip
    for name, (_, branch, commit, rounding) in found.items():
        assert max(branch, commit) < 1e-4 < 1e-1 < rounding, name
    for name in found:
        assert list(hub.repositories[f"alice/{name}"].refs) == ["main", "packed"]


def test_pushed_by_transformers(hub: Hub, client: Client) -> None:
    """Opened by repository, and from a folder of one commit of it; transformers itself does not quantize to compressed-tensors."""
    found = client(f"""{BEGIN}
for name in ("nested", "wide", "torchao"):
    theirs = quantized(transformers, name)
    theirs.push_to_hub(f"alice/{{name}}")
    theirs.save_pretrained(f"{{name}}/packed")
    commit = HfApi().upload_folder(repo_id=f"alice/{{name}}", folder_path=name).oid
    HfApi().delete_files(f"alice/{{name}}", ["packed/model.safetensors"])
    named = unibody.AutoModelForCausalLM.from_pretrained(f"alice/{{name}}")
    below = unibody.LlamaForCausalLM.from_pretrained(f"alice/{{name}}", revision=commit, subfolder="packed")
    answers[name] = (
        below.hf_quantizer.quantization_config.quant_method, differ(named, theirs), differ(below, theirs), differ(below, plain),
    )
""")
    assert {name: method for name, (method, *_) in found.items()} == {
        "nested": "bitsandbytes",
        "wide": "bitsandbytes",
        "torchao": "torchao",
    }
    for name, (_, named, below, rounding) in found.items():
        assert max(named, below) < 1e-4 < 1e-1 < rounding, name
        assert re.search(rf"HEAD alice/{name}/resolve/\w{{40}}/packed/model.safetensors", "\n".join(hub.asked))
