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


def model_card(thing: Any, repo_id: str, tags: list[str] | None = None) -> str:
    """The text for a model or a configuration, with the metadata that the Hub reads."""
    config = getattr(thing, "config", thing)
    name, kind = type(thing).__name__, getattr(config, "model_type", "")
    named = MODELS[kind]["classes"].items() if kind in MODELS else ()
    classes = {file_class: auto for auto, file_class in named}
    auto = classes.get(name) or ("AutoConfig" if thing is config else "")
    settings = getattr(config, "quantization_config", None) or {}
    method = str(settings.get("quant_method", "")) if isinstance(settings, dict) else ""
    base = getattr(thing, "name_or_path", "")
    head = {
        "library_name": "unibody",
        "pipeline_tag": TASKS.get(auto, ""),
        "base_model": base if "/" in base and base != repo_id and not base.startswith(("/", ".")) else "",
    }
    listed = [tag for tag in dict.fromkeys([kind, method, *(tags or [])]) if tag]
    lines = ["---", *(f"{key}: {value}" for key, value in head.items() if value)]
    lines += ["tags:", *(f"- {tag}" for tag in listed if tag), "---", "", f"# {repo_id.rpartition('/')[2]}", ""]
    what = f"`{name}`" + (f", quantized with {method}" if method else "")
    lines += [f"{what}.", "", "```python", "import unibody", ""]
    lines += [
        f'{"config" if thing is config else "model"} = unibody.{auto or name}.from_pretrained("{repo_id}")',
        "```",
        "",
    ]
    return "\n".join(lines)
