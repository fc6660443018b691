"""An adapter on the Hub: pushed alone, with a card, and loaded by name and revision; peft loads it too."""

from __future__ import annotations

from hub.conftest import Client
from hub.loopback import Hub


def test_adapter(hub: Hub, client: Client) -> None:
    found = client("""
from peft import LoraConfig, PeftModel
import transformers
ids = torch.tensor([[1, 5, 9, 2, 8]])
model = unibody.LlamaForCausalLM.from_pretrained(folder)
model.push_to_hub("alice/base")
model = unibody.LlamaForCausalLM.from_pretrained("alice/base")
model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
first = model.push_to_hub("alice/adapter")
answers["card"] = Path(unibody.cached_file("alice/adapter", "README.md")).read_text()
logits = model.eval()(ids).logits
again = unibody.LlamaForCausalLM.from_pretrained("alice/base")
again.load_adapter("alice/adapter", revision=first.oid)
answers["ours"] = torch.equal(again(ids).logits, logits)
theirs = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained("alice/base"), "alice/adapter")
answers["theirs"] = torch.allclose(theirs(ids).logits, logits, atol=1e-5)
auto = unibody.AutoModelForCausalLM.from_pretrained("alice/adapter", revision=first.oid)
answers["auto"] = torch.equal(auto(ids).logits, logits) and auto.active_adapters() == ["default"]
again.delete_adapter("default")
answers["missing"] = error(lambda: again.load_adapter("alice/nothing"))
answers["no adapter"] = error(lambda: again.load_adapter("alice/base"))
""")
    repository = hub.repositories["alice/adapter"]
    files = set(repository.commits[repository.refs["main"]])
    assert files - {".gitattributes"} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (found["ours"], found["theirs"], found["auto"]) == (True, True, True)
    assert found["missing"].startswith("HubError: alice/nothing is no repository that you can see")
    assert found["no adapter"] == "HubError: alice/base has no file adapter_config.json"
    assert "library_name: peft" in found["card"]
    assert "base_model: alice/base" in found["card"]
    assert 'model.load_adapter("alice/adapter")' in found["card"]
