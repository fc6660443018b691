"""Every generated model and the meaning of its definition give the same bits, module by module."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from meaning.interpreter import interpret
from oracle.inputs import padded_batch, token_ids
from oracle.zoo import Case, cases
from torch import Tensor, nn

from unibody.generated.registry import MODELS

ROOT = Path(__file__).parents[2]
SETTINGS = ("_no_split_modules", "_tied_weights_keys", "auto_class", "base_model_prefix")

every_case = pytest.mark.parametrize("case", cases(), ids=str)


@functools.cache
def meaning(model_type: str) -> dict[str, Any]:
    """What the definition of a model means."""
    name = MODELS[model_type]["module"].removeprefix("modeling_")
    return interpret(ROOT, f"modular/models/modular_{name}.py")


def pair(case: Case, **changes: Any) -> tuple[Any, Any]:
    """The generated model and the interpreted one, with the same random weights, in eval mode."""
    values = {**case.config, **changes}
    config, ours = case.config_class.from_dict(values), meaning(case.model_type)
    generated = case.model_class(config).eval()
    random = torch.Generator().manual_seed(0)
    for parameter in generated.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / parameter.shape[-1] ** 0.5
    interpreted = ours[case.class_name](ours[case.config_class.__name__].from_dict(values)).eval()
    interpreted.load_state_dict(generated.state_dict())
    return generated, interpreted


def outcome(model: nn.Module, **inputs: Any) -> dict[str, Any]:
    """What every module returns, call by call, by the module's name, class and number of the call."""
    found: dict[str, Any] = {}

    def note(name: str, module: nn.Module, output: Any) -> None:
        found[f"{name}: {type(module).__name__} {len(found)}"] = plain(output)

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
        for name, module in model.named_modules()
    ]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    return found


def plain(value: Any) -> Any:
    """Tensors as they are; named tuples, caches and the like as the dictionaries that they amount to."""
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        return {name: plain(item) for name, item in zip(names, value, strict=True)}
    if hasattr(value, "__dict__") and not isinstance(value, Tensor):
        return {name: plain(item) for name, item in vars(value).items()}
    return value


def assert_same(generated: Any, interpreted: Any, place: str = "") -> None:
    """The same structure, the same values, the same bits."""
    if isinstance(generated, dict):
        assert list(generated) == list(interpreted), place
        for name in generated:
            assert_same(generated[name], interpreted[name], f"{place}.{name}")
    elif isinstance(generated, Tensor):
        assert generated.dtype == interpreted.dtype and torch.equal(generated, interpreted), place
    else:
        assert generated == interpreted, place


def labels(case: Case, ids: Tensor) -> dict[str, Tensor]:
    """What the class needs to compute its loss."""
    if "SequenceClassification" in case.class_name:
        return {"labels": torch.tensor([0, 2, 1])[: len(ids)]}
    if "TokenClassification" in case.class_name:
        return {"labels": ids % 3}
    if "QuestionAnswering" in case.class_name:
        return {"start_positions": torch.ones(len(ids), dtype=torch.long), "end_positions": ids[:, 0] % 7}
    return {"labels": ids} if "LM" in case.class_name else {}


def test_every_class_of_the_registry_is_a_case():
    listed = {(model_type, name) for model_type, entry in MODELS.items() for name in entry["classes"].values()}
    assert listed <= {(case.model_type, case.class_name) for case in cases()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@every_case
def test_same_bits(case, attention):
    """Every module of every class, and the loss."""
    generated, interpreted = pair(case, attn_implementation=attention)
    ids = token_ids()
    inputs = {"input_ids": ids, **labels(case, ids)}
    with torch.no_grad():
        assert_same(outcome(generated, **inputs), outcome(interpreted, **inputs))


@every_case
def test_same_bits_with_padding(case):
    generated, interpreted = pair(case)
    batch = padded_batch()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        assert_same(outcome(generated, **inputs), outcome(interpreted, **inputs))


@every_case
def test_same_gradients(case):
    """In training mode, with the dropout of the same seed."""
    generated, interpreted = (model.train() for model in pair(case))
    ids = token_ids()
    inputs = {"input_ids": ids, **labels(case, ids)}
    found = []
    for model in (generated, interpreted):
        torch.manual_seed(0)
        output = model(**inputs)
        (output[0].sum() if isinstance(output[0], Tensor) else output[1].sum()).backward()
        found.append({name: parameter.grad for name, parameter in sorted(model.named_parameters())})
    assert_same(*found)


@pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
def test_same_tokens(case):
    """Sampled past the window, with a growing cache."""
    generated, interpreted = pair(case)
    options = {"max_new_tokens": 12, "do_sample": True, "seed": 3, "eos_token_id": -1}
    assert torch.equal(generated.generate(token_ids(), **options), interpreted.generate(token_ids(), **options))


@every_case
def test_same_configuration_and_settings(case):
    generated, interpreted = pair(case)
    assert_same(generated.config.to_dict(), interpreted.config.to_dict())
    for name in SETTINGS:
        assert getattr(generated, name, None) == getattr(interpreted, name, None), name


@pytest.mark.parametrize("model_type", MODELS)
def test_same_classes(model_type):
    """Each class that the generated file has under a name of the family means the class of that name."""
    case = next(case for case in cases() if case.model_type == model_type)
    names = {name for name, value in vars(case.module).items() if isinstance(value, type)}
    family = {name for name, value in meaning(model_type).items() if isinstance(value, type) and name in names}
    assert {name for name in names if name.startswith(case.config_class.__name__.removesuffix("Config"))} <= family
    for name in family:
        generated, interpreted = getattr(case.module, name), meaning(model_type)[name]
        if generated.__module__ == case.module.__name__ and interpreted.__module__.startswith("meaning"):
            ours, theirs = ({n for n in dir(c) if hasattr(c, n) and n[:2] != "__"} for c in (generated, interpreted))
            assert all(each.startswith("_") for each in ours - theirs), name
            assert theirs <= ours, name
