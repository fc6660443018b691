"""The README.md of a repository: what it holds and how to use it."""

from __future__ import annotations

import json
import re
from typing import Any

from unibody.generated.registry import MODELS
from unibody.model_types import class_names

YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null")  # which are no texts
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
    usage: str = "",
) -> str:
    """The text, with the metadata that the Hub reads, for a model of a class, or for the configuration alone.

    `config` is what config.json holds; without a class name, its `architectures` names the class. `auto` is the auto class to
    load it with, where it is no model; `usage` is code that says another way.
    """
    settings = mapping(config.get("quantization_config"))
    kind, method = str(config.get("model_type", "")), str(settings.get("quant_method", ""))
    architectures = config.get("architectures")
    name = str(class_name or (next(iter(architectures), "") if isinstance(architectures, list) else ""))
    name = name if name.isidentifier() else ""
    shipped = mapping(config.get("unibody_auto_map"))
    named = {str(reference).rpartition(".")[2]: auto for auto, reference in shipped.items() if auto.isidentifier()}
    named |= {class_name: auto for auto, class_name in class_names(kind).items()}
    trust = ", trust_remote_code=True" if shipped and kind not in MODELS else ""
    auto = auto or ("AutoConfig" if name.endswith("Config") and kind else named.get(name, name) or "AutoModel")
    variable = {"AutoConfig": "config", "AutoTokenizer": "tokenizer", "GenerationConfig": "config"}.get(auto, "model")
    known = "/" in base_model and base_model != repo_id and not base_model.startswith(("/", "."))
    head = {"library_name": "unibody", "pipeline_tag": TASKS.get(auto, ""), "base_model": base_model if known else ""}
    listed = [scalar(tag) for tag in dict.fromkeys([kind, method, *(tags or [])]) if tag]
    lines = ["---", *(f"{key}: {scalar(value)}" for key, value in head.items() if value)]
    lines += ["tags:", *(f"- {tag}" for tag in listed), "---", "", f"# {repo_id.rpartition('/')[2]}", ""]
    lines += [f"`{name or auto}`" + (f", quantized with {scalar(method)}." if method else "."), ""]
    lines += ["```python"]
    lines += [usage or f'import unibody\n\n{variable} = unibody.{auto}.from_pretrained("{repo_id}"{trust})', "```", ""]
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


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def scalar(text: str) -> str:
    """The text as YAML has it in one line: quoted, unless it is a word that means nothing else there."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) and text.lower() not in YAML_WORDS
    return text if plain else json.dumps(text)
