"""What a trainer uploads: at each checkpoint and at the end, model and card; a failing upload does not end the run."""

from __future__ import annotations

from hub.conftest import Client
from hub.loopback import Hub

TRAINING = """
import warnings
def trainer(model, **settings):
    data = [{"input_ids": torch.arange(3, 9), "labels": torch.arange(3, 9)}] * 4
    args = unibody.TrainingArguments(
        "out", max_steps=4, save_steps=2, use_cpu=True, push_to_hub=True, hub_model_id="alice/trained", learning_rate=1e-3,
        disable_tqdm=True, **settings)
    return unibody.Trainer(model, args, train_dataset=data)
"""


def test_push(hub: Hub, client: Client) -> None:
    """A model of the file edition, which has no `push_to_hub` itself."""
    found = client(
        TRAINING
        + """
from unibody.generated.models.modeling_llama import LlamaForCausalLM
made = trainer(LlamaForCausalLM.from_pretrained(folder), hub_private_repo=True)
made.train()
again = unibody.AutoModelForCausalLM.from_pretrained("alice/trained")
answers["same"] = sums(again) == sums(made.model)
answers["left"] = sorted(path.name for path in Path("out").iterdir())
made = trainer(LlamaForCausalLM.from_pretrained(folder), hub_token="hf_nobody")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    answers["error"] = error(made.train)
answers["steps"], answers["warned"] = made.state.global_step, [str(w.message) for w in caught if "upload" in str(w.message)]
"""
    )
    assert found["same"] and found["left"] == ["checkpoint-2", "checkpoint-4", "log.jsonl"]
    repository = hub.repositories["alice/trained"]
    assert repository.private
    assert {"Training in progress, step 2", "Training in progress, step 4"} <= set(repository.titles.values())
    assert found["steps"] == 4 and len(found["warned"]) == 1
    assert found["warned"][0].startswith("an upload failed, and training goes on: alice/trained")
    assert found["error"].startswith("HubError: ")


def test_push_at_the_end_only(hub: Hub, client: Client) -> None:
    """A plain module: its weights, and a card."""
    client(
        TRAINING
        + """
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, input_ids, labels):
        return {"loss": (self.weight * input_ids - labels).pow(2).mean() + self.weight.sum()}
trainer(Plain(), hub_strategy="end").train()
"""
    )
    repository = hub.repositories["alice/trained"]
    files = repository.commits[repository.refs["main"]]
    assert {"README.md", "model.safetensors"} <= set(files)
    assert not any("step" in title for title in repository.titles.values())
