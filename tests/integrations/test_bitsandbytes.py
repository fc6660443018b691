"""`replace_with_bnb_linear`: the layers are those of a checkpoint that is quantized while it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from integrations.packed import CONFIGS, plain_model
from oracle.inputs import token_ids
from torch import nn

import unibody
from unibody.integrations import replace_with_bnb_linear


@torch.no_grad()
@pytest.mark.parametrize("method", ["llm_int8", "nf4", "fp4"])
def test_weights_are_quantized(method: str, tmp_path: Path) -> None:
    plain_model().save_pretrained(tmp_path)
    loaded = unibody.LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=CONFIGS[method]())
    model = replace_with_bnb_linear(plain_model(), quantization_config=CONFIGS[method]())
    assert torch.equal(model(token_ids()).logits, loaded(token_ids()).logits)
    model.save_pretrained(tmp_path / "packed")
    again = unibody.LlamaForCausalLM.from_pretrained(tmp_path / "packed")
    assert torch.equal(again(token_ids()).logits, model(token_ids()).logits)


def test_names_of_modules_that_stay() -> None:
    model = replace_with_bnb_linear(plain_model(), ["q_proj", "layers.1.mlp"], CONFIGS["nf4"]())
    plain = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert plain == {
        *(f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)),
        *(f"model.layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")),
    }
    assert type(model.lm_head).__name__ == "Linear4bit"


def test_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = unibody.LlamaForCausalLM(plain_model().config)
    replace_with_bnb_linear(model, quantization_config=CONFIGS["llm_int8"](), pre_quantized=True)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert model.state_dict()["model.layers.0.mlp.up_proj.SCB"].shape == (256,)


def test_bad_input() -> None:
    with pytest.raises(
        ValueError, match=r"^quantization_config is no BitsAndBytesConfig: pass one, with load_in_8bit"
    ):
        replace_with_bnb_linear(plain_model())
    with pytest.raises(ValueError, match=r"^the BitsAndBytesConfig chooses no method: set load_in_8bit=True or"):
        replace_with_bnb_linear(plain_model(), quantization_config=unibody.BitsAndBytesConfig())
