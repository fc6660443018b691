"""What two processes find out about models that they share: split.py FOLDER writes what each has found, by the name of the check.

FOLDER holds `zoo/<case>`, `quantized/<method>`, `mixture` and `wide`, all checkpoints; torchrun starts it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ending import end
from models import mixture
from oracle.inputs import token_ids
from oracle.quantization import fixtures
from oracle.reference import values
from oracle.zoo import cases
from pages import run
from torch import Tensor
from training.rows import rows

import unibody
from unibody.tensor_parallel.gathering import join

ENCODER = {
    "encoder.layer.*.attention.self.*": "colwise",
    "encoder.layer.*.attention.output.dense": "rowwise",
    "encoder.layer.*.intermediate.dense": "colwise",
    "encoder.layer.*.output.dense": "rowwise",
    "embeddings.word_embeddings": "embedding_rowwise",
    "embeddings.position_embeddings": "embedding_colwise",
}
FIXTURES = {
    name: str(fixtures.FOLDER / name)
    for name in ("gptqmodel/llama-4bit-g32", "autoawq/llama-gemm-g32", "auto-round/llama-rtn", "aqlm/llama")
}
CHECKS: dict[str, Callable[[Path], Any]] = {}
Auto = unibody.AutoModelForCausalLM


def check(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    CHECKS[function.__name__] = function
    return function


def difference(model: Any, other: Any, ids: Tensor) -> float:
    with torch.no_grad():
        found, expected = values(model(ids)), values(other(ids))
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def share(model: Any, whole: Any) -> float:
    """Of the bytes of the parameters that are split, what this process holds."""
    found = {name: parameter for name, parameter in model.named_parameters() if name in model.parallelism.splits}
    return sum(p.to_local().nbytes for p in found.values()) / sum(whole.get_parameter(name).nbytes for name in found)


def saved(model: Any, whole: Any, folder: Path) -> bool:
    """Whether the files that both write have the same bytes; only the first process can tell."""
    model.save_pretrained(folder / "saved")
    if dist.get_rank() > 0:
        return True
    whole.save_pretrained(folder / "saved-whole")
    names = sorted(path.name for path in (folder / "saved-whole").iterdir())
    assert names == sorted(path.name for path in (folder / "saved").iterdir())
    return all(
        (folder / "saved" / name).read_bytes() == (folder / "saved-whole" / name).read_bytes() for name in names
    )


def same(model: Any, whole: Any, folder: Path, vocabulary: int = 128) -> dict[str, Any]:
    ids = token_ids() % (vocabulary - 3) + 3
    found: dict[str, Any] = {"difference": difference(model, whole, ids), "saved": saved(model, whole, folder)}
    if hasattr(model, "generate"):
        found["tokens"] = torch.equal(model.generate(ids, max_new_tokens=6), whole.generate(ids, max_new_tokens=6))
    return found


@check
def zoo(folder: Path) -> Any:
    found = {}
    for place in sorted((folder / "zoo").iterdir()):
        case = next(case for case in cases() if str(case) == place.name)
        auto, plan = getattr(unibody, str(case.auto_class)), ENCODER if "ert" in case.model_type else "auto"
        whole, model = auto.from_pretrained(place), auto.from_pretrained(place, tp_plan=plan)
        found[place.name] = {**same(model, whole, folder), "share": share(model, whole)}
    return found


@check
def parts_that_are_uneven(folder: Path) -> Any:
    """33 tokens over two processes; the embedding and the head are one weight, or the head alone is split."""
    found = {}
    for tied in (True, False):
        torch.manual_seed(1)
        config = unibody.LlamaConfig(
            vocab_size=33, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            tie_word_embeddings=tied, pad_token_id=20, initializer_range=0.3, max_position_embeddings=64,
        )  # fmt: skip
        whole, place = unibody.LlamaForCausalLM(config).eval(), folder / f"uneven-{tied}"
        if dist.get_rank() == 0:
            whole.save_pretrained(place)
        dist.barrier()
        found[str(tied)] = same(Auto.from_pretrained(place, tp_plan="auto"), Auto.from_pretrained(place), folder, 33)
    return found


@check
def bytes_read(folder: Path) -> Any:
    """By the kernel: of the file, the pages that this process has touched; of its memory, what loading has added."""

    def resident(kind: str) -> int:
        (kilobytes,) = re.findall(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(kilobytes) * 1024

    before, kept = resident("RssAnon"), []
    module = sys.modules[unibody.LlamaForCausalLM.file_class.__module__]
    read = module.read_tensors
    module.read_tensors = (
        lambda place: kept.append(read(place)) or kept[0]
    )  # else nothing is mapped any more afterwards
    model = unibody.LlamaForCausalLM.from_pretrained(folder / "wide", tp_plan="auto")
    module.read_tensors = read
    areas = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    mapped = [area for area in areas if "model.safetensors" in area.splitlines()[0]]
    touched = sum(int(re.findall(r"Rss:\s+(\d+) kB", area)[0]) * 1024 for area in mapped)
    size = (folder / "wide/model.safetensors").stat().st_size
    held = sum(p.to_local().nbytes if hasattr(p, "to_local") else p.nbytes for p in model.parameters())
    return {"read": touched / size, "held": held / size, "memory": (resident("RssAnon") - before) / size}


@check
def packed(folder: Path) -> Any:
    found = {}
    for name, place in {**FIXTURES, **{path.name: str(path) for path in (folder / "quantized").iterdir()}}.items():
        whole, model = Auto.from_pretrained(place), Auto.from_pretrained(place, tp_plan="auto")
        sizes = [
            sum(t.nbytes for m in x.modules() if hasattr(m, "stored_tensors") for t in m.stored_tensors().values())
            for x in (model, whole)
        ]
        found[name] = {**same(model, whole, folder, 30), "share": sizes[0] / sizes[1], "layers": layers(model, whole)}
    found["while loading"] = difference(
        *(Auto.from_pretrained(folder / "quantized-from", quantization_config=unibody.BitsAndBytesConfig(load_in_8bit=True), **o)
          for o in ({"tp_plan": "auto"}, {})), token_ids(),
    )  # fmt: skip
    return found


def layers(model: Any, whole: Any) -> float:
    """The largest difference of packed layers' outputs for inputs that are the same: rounding does not add up."""
    largest = 0.0
    for name, layer in whole.named_modules():
        if hasattr(layer, "stored_tensors"):
            x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(5))
            split = model.parallelism.packed[name]
            rank, half = dist.get_rank(), layer.in_features // 2
            is_part = model.parallelism.plan[name] != "colwise"
            with torch.no_grad():
                output, expected = (
                    model.get_submodule(name)(x[:, rank * half : (rank + 1) * half] if is_part else x),
                    layer(x),
                )
            if not is_part:
                expected = split.take(expected.T, rank, 2).T
            largest = max(largest, float((output - expected).abs().max()))
    return largest


@check
def experts(folder: Path) -> Any:
    """Logits and gradients: a part of each expert, some experts whole, and these beside a split attention."""
    mixture.register()
    found, ids = {}, token_ids()
    options: dict[str, Any] = {
        "parts": {"tp_plan": "auto"},
        "experts": {"distributed_config": unibody.DistributedConfig(enable_expert_parallel=True)},
        "both": {"distributed_config": {"ep_size": 2}},
    }
    for name, chosen in options.items():
        whole, model = Auto.from_pretrained(folder / "mixture"), Auto.from_pretrained(folder / "mixture", **chosen)
        model(ids, labels=ids).loss.backward()
        whole(ids, labels=ids).loss.backward()
        splits, gradients = model.parallelism.splits, {}
        for key, parameter in model.named_parameters():
            part = parameter.grad
            gradients[key] = join(part, splits[key], model.parallelism) if key in splits else part
        worst = max(float((gradients[key] - p.grad).abs().max()) for key, p in whole.named_parameters())
        model.zero_grad()
        attention = "model.layers.0.self_attn.q_proj.weight" in splits
        found[name] = {
            **same(model, whole, folder),
            "gradients": worst,
            "share": share(model, whole),
            "attention": attention,
        }
    return found


@check
def missing_weights(folder: Path) -> Any:
    """A head that the checkpoint lacks is drawn by each process, and is the first's in all."""
    torch.manual_seed(dist.get_rank())
    model = unibody.AutoModelForSequenceClassification.from_pretrained(folder / "zoo/LlamaModel", tp_plan="auto")
    weights: list[Any] = [torch.empty_like(model.score.weight) for _ in range(2)]
    dist.all_gather(weights, model.score.weight.detach())
    return {"same": torch.equal(*weights), "drawn": float(weights[0].std())}


@check
def sampling(folder: Path) -> Any:
    """Processes whose random numbers differ choose the tokens that the first would choose alone."""
    place, ids = folder / "zoo/LlamaForCausalLM", token_ids()
    model, whole = Auto.from_pretrained(place, tp_plan="auto"), Auto.from_pretrained(place)
    torch.manual_seed(dist.get_rank())
    found = model.generate(ids, max_new_tokens=8, do_sample=True)
    torch.manual_seed(0)
    return torch.equal(found, whole.generate(ids, max_new_tokens=8, do_sample=True))


@check
def quantizer_is_asked(folder: Path) -> Any:
    """A quantizer's hooks come before its layers do, and what they return is the plan."""
    calls: list[str] = []

    class Quantizer:
        def validate_environment(self, **_: Any) -> None:
            calls.append("validate_environment")

        def update_tp_plan(self, config: Any) -> Any:
            calls.append("update_tp_plan")
            config.base_model_tp_plan = {"layers.*.mlp.gate_proj": "colwise_rep"}
            return config

        def update_ep_plan(self, config: Any) -> Any:
            calls.append("update_ep_plan")
            return config

        def preprocess_model(self, **_: Any) -> None:
            calls.append("preprocess_model")

    place = folder / "zoo/LlamaForCausalLM"
    model = Auto.from_pretrained(place, tp_plan="auto", quantizer=Quantizer())
    plan = sorted(set(model.parallelism.plan.values()))
    kept = "base_model_tp_plan" in model.config.to_dict()
    return {"calls": calls, "plan": plan, "written": kept, **same(model, Auto.from_pretrained(place), folder)}


@check
def bfloat16(folder: Path) -> Any:
    place = folder / "zoo/LlamaForCausalLM"
    model, whole = (Auto.from_pretrained(place, dtype="bfloat16", **o) for o in ({"tp_plan": "auto"}, {}))
    return {"type": str(model.dtype), **same(model, whole, folder)}


@check
def refusals(folder: Path) -> Any:
    zoo, found = folder / "zoo", {}
    gptq = unibody.GPTQConfig(bits=4, dataset=[[1, 2, 3]])
    asked: dict[str, tuple[Path, dict[str, Any]]] = {
        "encoder": (zoo / "BertForMaskedLM", {"tp_plan": "auto"}),
        "style": (zoo / "LlamaForCausalLM", {"tp_plan": {"layers.*.mlp.up_proj": "sideways"}}),
        "layer": (zoo / "LlamaForCausalLM", {"tp_plan": {"layers.*.mlp.up": "colwise"}}),
        "kind": (zoo / "LlamaForCausalLM", {"tp_plan": True}),
        "norm": (zoo / "LlamaForCausalLM", {"tp_plan": {"norm": "colwise"}}),
        "heads": (folder / "three", {"tp_plan": "auto"}),
        "size": (zoo / "LlamaForCausalLM", {"tp_plan": "auto", "tp_size": 3}),
        "places": (zoo / "LlamaForCausalLM", {"tp_plan": "auto", "device_map": "auto"}),
        "twice": (zoo / "LlamaForCausalLM", {"tp_plan": "auto", "distributed_config": {"tp_size": 2}}),
        "data": (zoo / "LlamaForCausalLM", {"tp_plan": "auto", "quantization_config": gptq}),
        "act-order": (fixtures.FOLDER / "gptqmodel/llama-8bit-desc_act", {"tp_plan": "auto"}),
        "hqq": (folder / "refused/hqq", {"tp_plan": "auto"}),
        "nf4": (folder / "refused/nf4", {"tp_plan": "auto"}),
        "blocks": (folder / "refused/blocks", {"tp_plan": "auto"}),
        "routed": (zoo / "LlamaForCausalLM", {"tp_plan": {"layers.*.mlp": "ep_dispatch_experts"}}),
        "width": (folder / "odd", {"tp_plan": "auto"}),
        "experts": (zoo / "LlamaForCausalLM", {"distributed_config": {"enable_expert_parallel": True}}),
        "tied": (zoo / "llama_tied_bias-LlamaForCausalLM", {"tp_plan": {"embed_tokens": "embedding_colwise"}}),
    }
    for name, (place, options) in asked.items():
        auto = unibody.AutoModelForMaskedLM if name == "encoder" else Auto
        try:
            auto.from_pretrained(place, **options)
        except (TypeError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    model = Auto.from_pretrained(zoo / "LlamaForCausalLM", tp_plan="auto")
    try:
        from peft import LoraConfig

        model.add_adapter(LoraConfig(r=4))
    except ValueError as error:
        found["adapter"] = str(error)
    return found


@check
def trained_otherwise(folder: Path) -> Any:
    """A model that processes share is trained so, and in as many parts."""
    model, found = Auto.from_pretrained(folder / "zoo/LlamaForCausalLM", tp_plan="auto"), []
    single = Auto.from_pretrained(folder / "zoo/LlamaForCausalLM", tp_plan="auto", tp_size=1)
    for given, sizes in ((model, None), (single, {"tp_size": 2}), (torch.nn.Linear(2, 2), {"tp_size": 2})):
        args = unibody.TrainingArguments(str(folder / "out"), use_cpu=True, parallelism_config=sizes)
        try:
            unibody.Trainer(given, args)
        except ValueError as error:
            found.append(str(error))
    return found


@check
def page(folder: Path) -> Any:
    """The code of docs/tensor-parallel.md, from top to bottom."""
    os.chdir(folder)
    names = run("docs/tensor-parallel.md", folder=str(folder / "zoo/LlamaForCausalLM"), rows=rows())
    again = Auto.from_pretrained("whole")
    return {"same": difference(again, Auto.from_pretrained(names["folder"]), token_ids()), "loss": names["loss"]}


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    found = {name: function(folder) for name, function in CHECKS.items()}
    (folder / f"found-{dist.get_rank()}.json").write_text(json.dumps(found), encoding="utf-8")
    end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
