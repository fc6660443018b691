"""The README.md of a repository: what it holds and how to use it."""

from __future__ import annotations

from typing import Any

from unibody.generated.registry import MODELS

TASKS = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
}


def model_card(
    repo_id: str,
    config: dict[str, Any],
    class_name: str = "",
    base_model: str = "",
    tags: list[str] | None = None,
    auto: str = "",
) -> str:
    """The text, with the metadata that the Hub reads, for a model of a class, or for the configuration alone.

    `config` is what config.json holds; without a class name, its `architectures` names the class. `auto` is the auto class to
    load it with, where it is no model.
    """
    kind, settings = str(config.get("model_type", "")), config.get("quantization_config") or {}
    name = class_name or next(iter(config.get("architectures") or ()), "")
    named = MODELS[kind]["classes"].items() if kind in MODELS else ()
    auto = auto or (
        "AutoConfig" if name.endswith("Config") else {found: auto for auto, found in named}.get(name, name)
    )
    variable = {"AutoConfig": "config", "AutoTokenizer": "tokenizer"}.get(auto, "model")
    method = str(settings.get("quant_method", ""))
    known = "/" in base_model and base_model != repo_id and not base_model.startswith(("/", "."))
    head = {"library_name": "unibody", "pipeline_tag": TASKS.get(auto, ""), "base_model": base_model if known else ""}
    listed = [tag for tag in dict.fromkeys([kind, method, *(tags or [])]) if tag]
    lines = ["---", *(f"{key}: {value}" for key, value in head.items() if value)]
    lines += ["tags:", *(f"- {tag}" for tag in listed), "---", "", f"# {repo_id.rpartition('/')[2]}", ""]
    lines += [f"`{name}`" + (f", quantized with {method}." if method else "."), "", "```python", "import unibody", ""]
    lines += [f'{variable} = unibody.{auto}.from_pretrained("{repo_id}")', "```", ""]
    return "\n".join(lines)


def adapter_card(
    repo_id: str, config: dict[str, Any], class_name: str, base_model: str, tags: list[str] | None
) -> str:
    """The text for an adapter, which is loaded into the model that it was trained beside."""
    card = model_card(repo_id, config, class_name, base_model, ["adapter", *(tags or [])])
    head, _, _ = card.replace("library_name: unibody", "library_name: peft").partition("```python")
    known = base_model if "\nbase_model: " in head else "the model that it was trained beside"
    lines = ["```python", "import unibody", "", f'model = unibody.{class_name}.from_pretrained("{known}")']
    return head + "\n".join([*lines, f'model.load_adapter("{repo_id}")', "```", ""])
